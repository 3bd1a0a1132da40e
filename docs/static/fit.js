// Formulas wider than the page shrink to fit it, to six tenths at most; beyond that they scroll.
const fit = () => {
  for (const formula of document.querySelectorAll('mjx-container[display="true"]')) {
    formula.style.fontSize = '';
    const share = formula.clientWidth / formula.scrollWidth;
    if (share < 1) formula.style.fontSize = `${Math.max(0.6, 0.99 * share) * 100}%`;
  }
};
const whenTypeset = () => (window.MathJax?.startup?.promise ? MathJax.startup.promise.then(fit) : setTimeout(whenTypeset, 50));
if (document.querySelector('div.math, span.math')) {
  window.addEventListener('load', whenTypeset);
  window.addEventListener('resize', fit);
}
