// @ts-check
// Loaded before TensorBoard starts, on every address of `mnist-tb board`: the page reloads its data (reload.js), curves
// are drawn as they are, and Time Series begins with those that matter, pinned.
(() => {
  const SETTINGS = '_tb_global_settings', DONE = 'mnist_tb_settings', OUTLIERS = '_ignoreYOutliers';
  const PINS = 'tb-saved-scalar-pins', PINNED = ['loss/train', 'loss/val', 'accuracy/train', 'accuracy/val'];
  const SMOOTHING = '_smoothingWeight', OLDER_TABS = ['scalars', 'custom_scalars'];

  /** Once per browser and origin, and never over a setting that is there: what the user changes afterwards stays. */
  function setUp() {
    if (localStorage.getItem(DONE)) return;
    const ours = {
      autoReload: true,
      // TensorBoard takes no period under 30 s, and browsers take a delay modulo 2 ** 32 ms: this one is two seconds.
      autoReloadPeriodInMs: 2 ** 32 + 2000,
      scalarSmoothing: 0,
      ignoreOutliers: false,
    };
    const users = JSON.parse(localStorage.getItem(SETTINGS) || '{}');
    localStorage.setItem(SETTINGS, JSON.stringify({...ours, ...users}));
    if (localStorage.getItem(OUTLIERS) === null) localStorage.setItem(OUTLIERS, 'false');
    if (localStorage.getItem(PINS) === null) localStorage.setItem(PINS, JSON.stringify(PINNED));
    localStorage.setItem(DONE, '1');
  }

  /** The two older tabs keep their smoothing in the address alone, and smooth by 0.6 where it says nothing. */
  const visited = new Set();
  function unsmooth() {
    const tab = location.hash.slice(1).split('&')[0];
    if (!OLDER_TABS.includes(tab) || visited.has(tab)) return;
    visited.add(tab);  // from here on the user's own choice holds
    if (!location.hash.includes(SMOOTHING)) history.replaceState(history.state, '', `${location.href}&${SMOOTHING}=0`);
  }

  /**
   * Has Time Series notice anew, every two seconds, which charts can be seen. TensorBoard 2.21 keeps of each chart
   * whether its data were under way when that last changed, and asks no more for those where they were, as the pinned
   * ones' are (getVisibleCardFetchInfos in metrics/effects): they stood still until somebody scrolled.
   */
  function keepAlive() {
    const seen = new Map();  // chart → who watches it
    window.IntersectionObserver = class extends IntersectionObserver {
      /**
       * @param {IntersectionObserverCallback} callback
       * @param {IntersectionObserverInit} [options]
       */
      constructor(callback, options) {
        super((entries, observer) => {
          for (const {target, isIntersecting} of entries) {
            if (isIntersecting && target.localName === 'card-view') seen.set(target, this);
            else seen.delete(target);
          }
          callback(entries, observer);
        }, options);
      }

      /** @param {Element} target */
      unobserve(target) {
        seen.delete(target);
        super.unobserve(target);
      }

      disconnect() {
        for (const [target, observer] of seen) if (observer === this) seen.delete(target);
        super.disconnect();
      }
    };
    setInterval(() => {
      if (document.hidden) return;
      for (const [target, observer] of [...seen]) {
        observer.unobserve(target);
        if (target.isConnected) observer.observe(target);
      }
    }, 2000);
  }

  try {
    setUp();
  } catch (error) {
    console.warn('mnist_tb: the page will not reload by itself:', error);  // no storage here, or not ours
  }
  keepAlive();
  unsmooth();
  addEventListener('hashchange', unsmooth);
})();
