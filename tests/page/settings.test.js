import assert from 'node:assert/strict';
import {mock, test} from 'node:test';

import {run} from './browser.js';

/** A window in which the script has run, with what was stored in it before, and at an address. */
function visit({stored = {}, hash = '#timeseries', broken = false} = {}) {
  const kept = new Map(Object.entries(stored));
  const window = Object.assign(new EventTarget(), {
    addEventListener: EventTarget.prototype.addEventListener,
    localStorage: {
      getItem: key => {
        if (broken) throw new Error('no storage');
        return kept.get(key) ?? null;
      },
      setItem: (key, value) => kept.set(key, value),
    },
    location: {hash, href: `http://localhost/${hash}`},
    history: {state: 'theirs', replaceState: mock.fn()},
    document: {hidden: false},
    console: {warn: mock.fn()},
    setInterval: mock.fn(),
    IntersectionObserver: class {
      constructor(callback, options) {
        Object.assign(this, {callback, options, observe: mock.fn(), gone: []});
      }

      unobserve(target) {
        this.gone.push(target);
      }

      disconnect() {
        this.gone.push('all');
      }
    },
  });
  window.addEventListener = window.addEventListener.bind(window);
  run('settings.js', window);
  return {window, kept, settings: () => JSON.parse(kept.get('_tb_global_settings') ?? 'null')};
}

test('a browser that was never here gets our settings', () => {
  const {kept, settings} = visit();
  assert.deepEqual(settings(),
    {autoReload: true, autoReloadPeriodInMs: 2 ** 32 + 2000, scalarSmoothing: 0, ignoreOutliers: false});
  assert.equal(kept.get('_ignoreYOutliers'), 'false');
  assert.deepEqual(JSON.parse(kept.get('tb-saved-scalar-pins')),
    ['loss/train', 'loss/val', 'accuracy/train', 'accuracy/val']);
});

test('what is set there already stays', () => {
  const stored = {
    _tb_global_settings: '{"scalarSmoothing": 0.6, "theme": "dark"}',
    _ignoreYOutliers: 'true',
    'tb-saved-scalar-pins': '[]',
  };
  const {kept, settings} = visit({stored});
  assert.equal(settings().scalarSmoothing, 0.6);
  assert.equal(settings().theme, 'dark');
  assert.equal(settings().autoReload, true);
  assert.equal(kept.get('_ignoreYOutliers'), 'true');
  assert.equal(kept.get('tb-saved-scalar-pins'), '[]');
});

test('a second visit changes nothing', () => {
  const {settings} = visit({stored: {mnist_tb_settings: '1'}});
  assert.equal(settings(), null);
});

test('without storage, the console says what is missing, and the rest goes on', () => {
  const {window} = visit({broken: true, hash: '#scalars'});
  assert.equal(window.console.warn.mock.callCount(), 1);
  assert.equal(window.history.replaceState.mock.callCount(), 1);
});

test('the older tabs begin without smoothing, once each', () => {
  const {window} = visit({hash: '#scalars'});
  const {calls} = window.history.replaceState.mock;
  assert.deepEqual([...calls[0].arguments], ['theirs', '', 'http://localhost/#scalars&_smoothingWeight=0']);
  window.dispatchEvent(new Event('hashchange'));
  assert.equal(calls.length, 1);
  for (const hash of ['#custom_scalars&_smoothingWeight=0.3', '#timeseries']) {
    window.location.hash = hash;
    window.dispatchEvent(new Event('hashchange'));
  }
  assert.equal(calls.length, 1, 'a weight that is given holds, and other tabs have none');
});

/** Charts that are seen by an observer of TensorBoard's, and what happens every two seconds. */
function watched() {
  const {window} = visit();
  const theirs = mock.fn(), observer = new window.IntersectionObserver(theirs, {rootMargin: '9px'});
  const [tick, period] = window.setInterval.mock.calls[0].arguments;
  const chart = {localName: 'card-view', isConnected: true}, other = {localName: 'div', isConnected: true};
  const see = (target, isIntersecting) => observer.callback([{target, isIntersecting}], observer);
  return {window, theirs, observer, tick, period, chart, other, see};
}

test('a chart that can be seen is noticed anew every two seconds', () => {
  const {theirs, observer, tick, period, chart, other, see} = watched();
  see(chart, true);
  see(other, true);
  assert.equal(theirs.mock.callCount(), 2, 'TensorBoard hears all');
  assert.deepEqual(observer.options, {rootMargin: '9px'});
  tick();
  assert.equal(period, 2000);
  assert.deepEqual(observer.gone, [chart]);
  assert.deepEqual(observer.observe.mock.calls.map(call => call.arguments[0]), [chart]);
});

test('what cannot be seen is left alone', () => {
  for (const leave of [
    ({see, chart}) => see(chart, false),
    ({window}) => { window.document.hidden = true; },
    ({chart}) => { chart.isConnected = false; },
    ({observer, chart}) => observer.unobserve(chart),
    ({observer}) => observer.disconnect(),
  ]) {
    const all = watched();
    all.see(all.chart, true);
    leave(all);
    all.tick();
    assert.equal(all.observer.observe.mock.callCount(), 0, String(leave));
  }
});
