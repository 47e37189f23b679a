// @ts-check
/** @import {RunsAnswer} from './types.js' */

// Loaded before TensorBoard starts. TensorBoard reloads its data by the clock, and each reload dims what is drawn until
// all is answered: here it reloads while the runs have something new, and spends at most a third of the time on it.
(() => {
  const OURS = 2 ** 32;  // a period of settings.js is longer; with one that a user chose TensorBoard does as it does
  const ASK = 1000, PATIENCE = 20_000, LEAST = 2000, MOST = 30_000, TICK = 200;  // milliseconds
  const WHILE = 12_000;  // after each piece of news: a training that is alive has some every ten seconds
  const {setTimeout: once, setInterval: repeat, fetch} = window;
  let server = '', number = 0;  // of the newest answer to `runs`, see board/snapshot.py
  let news = performance.now(), reloaded = news, busy = 0, open = 0, opened = 0;

  async function ask() {
    if (!document.hidden) {
      try {
        const asked = fetch(`data/plugin/live/runs?since=${number}`,
          {cache: 'no-store', signal: AbortSignal.timeout(PATIENCE)});
        /** @type {RunsAnswer} */
        const answer = await (await asked).json();
        if (answer.server !== server || answer.number !== number) news = performance.now();
        ({server, number} = answer);
      } catch { /* it is too busy, or has ended: TensorBoard says so */ }
    }
    once(ask, ASK);  // one question at a time
  }

  function isTime() {
    const now = performance.now(), since = now - reloaded;
    if (document.hidden || since < LEAST) return false;
    if (since > MOST) return true;  // runs that log pictures alone are no news
    return now - news < WHILE && open === 0 && since >= 3 * busy;
  }

  /**
   * TensorBoard's timer for its next reload, which can be cleared as any other.
   * @param {() => void} reload
   */
  function whenNew(reload) {
    const timer = repeat(() => {
      if (!isTime()) return;
      clearInterval(timer);
      [reloaded, busy] = [performance.now(), 0];
      reload();
    }, TICK);
    return timer;
  }

  function begin() {
    if (open++ === 0) opened = performance.now();
  }

  function end() {
    if (--open === 0) busy += performance.now() - Math.max(opened, reloaded);
  }

  window.setTimeout = (what, delay = 0, ...rest) =>
    delay > OURS ? whenNew(/** @type {() => void} */ (what)) : once(what, delay, ...rest);
  window.fetch = (...asked) => {
    begin();
    return fetch(...asked).finally(end);
  };
  const send = XMLHttpRequest.prototype.send;
  XMLHttpRequest.prototype.send = function (...content) {
    begin();
    this.addEventListener('loadend', end, {once: true});
    return send.apply(this, content);
  };
  ask();
})();
