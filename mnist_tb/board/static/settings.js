// Loaded before TensorBoard starts, on every address of `mnist-tb board`: the page reloads its data every two seconds,
// and curves are drawn as they are.
(() => {
  const SETTINGS = '_tb_global_settings', DONE = 'mnist_tb_settings', OUTLIERS = '_ignoreYOutliers';
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

  try {
    setUp();
  } catch (error) {
    console.warn('mnist_tb: the page will not reload by itself:', error);  // no storage here, or not ours
  }
  unsmooth();
  addEventListener('hashchange', unsmooth);
})();
