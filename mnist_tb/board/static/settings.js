// Loaded before TensorBoard starts, on every address of `mnist-tb board`: the page reloads its data every two seconds,
// and curves are drawn as they are. Once per browser and origin, and never over a setting that is there already: what
// the user changes afterwards stays.
(() => {
  const SETTINGS = '_tb_global_settings', DONE = 'mnist_tb_settings';
  try {
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
    if (localStorage.getItem('_ignoreYOutliers') === null) localStorage.setItem('_ignoreYOutliers', 'false');
    localStorage.setItem(DONE, '1');
  } catch (error) {
    console.warn('mnist_tb: the page will not reload by itself:', error);  // no storage here, or not ours
  }
})();
