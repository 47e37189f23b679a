// The Live tab: asks twice a second for the runs that have changed, and draws those that can be seen.
// Whatever comes from a run is put into the page as text, never as markup.

import {Chart, count, curveLine, isShare, SLATE, TENSORBOARDS} from './charts.js';
import {element, setText} from './dom.js';
import {Machine} from './machine.js';
import {Overlay} from './overlay.js';
import {Result} from './result.js';

const POLL_MS = 500, PATIENCE_MS = 20_000, TOGETHER_MS = 50;
const OPEN_AT_FIRST = 3;  // at most so many running runs are unfolded without being asked for
const SVG = 'http://www.w3.org/2000/svg';
const SPLITS = {train: 'training', val: 'validation'};
const WORDS = {running: 'running', completed: 'completed', interrupted: 'interrupted', pruned: 'pruned',
  failed: 'failed', silent: 'silent', foreign: 'no status'};
const HINTS = {pruned: 'A sweep stopped it: others did better after as many epochs.',
  silent: 'Nothing was heard of its process for half a minute: it was killed, or its machine is gone.',
  foreign: 'Not written by mnist_tb: its curves are all that is known.'};

const cards = new Map();  // run name → its card
let number = 0, server = null, top, list, trouble, overlay, order = [];

export function render() {
  document.title = 'Live';
  document.documentElement.lang = 'en';
  for (const file of ['live.css', 'charts.css', 'vendor/uPlot.min.css']) {
    document.head.append(element('link', {rel: 'stylesheet', href: `static/${file}`}));
  }
  const library = element('script', {src: 'static/vendor/uPlot.iife.min.js'});
  library.addEventListener('load', () => poll());
  document.head.append(library);
  top = element('div', {className: 'top'});
  trouble = element('p', {className: 'trouble', role: 'status'});
  list = element('div');
  overlay = new Overlay(ask);
  document.body.append(element('main', {}, top, trouble, overlay.root, list));
  remember();
  followTheme();
}

async function poll() {
  if (!document.hidden) {
    try {
      const answer = await (await ask(`runs?since=${number}`)).json();
      if (server !== null && server !== answer.server) {  // a new server counts anew
        number = 0;
        server = null;
      } else {
        ({server, number} = answer);
        show(answer);
      }
      trouble.textContent = '';
    } catch (error) {
      trouble.textContent = 'TensorBoard does not answer; trying again.';
    }
  }
  setTimeout(poll, POLL_MS);
}

async function ask(address) {
  // After a laptop's sleep a connection can be gone without a word: then the next poll asks anew.
  const answer = await fetch(address, {cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS)});
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return answer;
}

function show({names, runs, now}) {
  for (const name of [...cards.keys()].filter(name => !names.includes(name))) {
    cards.get(name).curves?.destroy();
    cards.get(name).machine?.destroy();
    cards.get(name).root.remove();
    cards.delete(name);
  }
  const first = cards.size === 0;
  for (const run of runs) {
    if (!cards.has(run.run)) cards.set(run.run, new Card(run.run));
    cards.get(run.run).update(run, now);
  }
  const known = order = names.filter(name => cards.has(name));
  arrange();
  const running = known.filter(name => cards.get(name).run.state === 'running');
  if (first && known.length) (running.length ? running.slice(0, OPEN_AT_FIRST) : known.slice(0, 1)).forEach(unfold);
  else runs.filter(run => run.state === 'running' && cards.get(run.run).isNew && running.length <= OPEN_AT_FIRST)
    .forEach(run => unfold(run.run));
  for (const run of runs) cards.get(run.run).isNew = false;
  for (const card of cards.values()) card.draw();
  head();
}

// ---- What is shown of many runs, and in which order

const SORTS = {
  newest: null, name: run => run.run, loss: run => run.loss, accuracy: run => -run.accuracy, validation: run => -run.val_accuracy,
  'validation loss': run => run.val_loss, test: run => -run.test_accuracy, 'images/s': run => -run.images_per_second,
};
const choice = {search: '', state: '', sort: 'newest', ticked: new Set()};

/** Sort and filter the cards, moving none that is in its place: the focus stays. */
function arrange() {
  const by = SORTS[choice.sort], words = choice.search.toLowerCase().split(/\s+/).filter(Boolean);
  const key = name => { const value = by(cards.get(name).run); return typeof value === 'number' && !Number.isFinite(value) ? undefined : value; };
  const sorted = by ? [...order].sort((a, b) => compare(key(a), key(b))) : order;
  sorted.forEach((name, place) => {
    const {root, run} = cards.get(name);
    if (list.children[place] !== root) list.insertBefore(root, list.children[place] ?? null);
    const text = `${name} ${run.dataset ?? ''} ${WORDS[run.state]} ${run.error ?? ''}`.toLowerCase();
    root.hidden = (choice.state && run.state !== choice.state) || !words.every(word => text.includes(word));
  });
}

/** What is unknown comes last. */
function compare(a, b) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  return a < b ? -1 : a > b ? 1 : 0;
}

/** What is chosen stands in the page's address, so that a link shows the same. */
function remember() {
  const theirs = outside();
  const given = new URLSearchParams(theirs.hash.split('&').slice(1).join('&'));
  choice.search = given.get('search') ?? '';
  choice.state = WORDS[given.get('state')] ? given.get('state') : '';
  choice.sort = given.get('sort') in SORTS ? given.get('sort') : 'newest';
  choice.ticked = new Set(given.getAll('run'));
}

function note() {
  const said = new URLSearchParams();
  for (const key of ['search', 'state']) if (choice[key]) said.set(key, choice[key]);
  if (choice.sort !== 'newest') said.set('sort', choice.sort);
  for (const name of choice.ticked) said.append('run', name);
  const theirs = outside(), text = said.toString();
  try {
    window.parent.history.replaceState(window.parent.history.state, '', `${theirs.pathname}${theirs.search}#live${text ? `&${text}` : ''}`);
  } catch {
    // within a page of another origin there is no address to stand in
  }
}

function outside() {
  try {
    return window.parent.location;
  } catch {
    return window.location;
  }
}

function change(what) {
  Object.assign(choice, what);
  note();
  arrange();
  for (const card of cards.values()) card.draw();
  head();
}

function unfold(name) {
  cards.get(name).unfold(true);
}

let search, sort, states, counted, fold, link;

function head() {
  if (!top.children.length) {
    search = element('input', {type: 'search', placeholder: 'search', ariaLabel: 'search', value: choice.search});
    search.addEventListener('input', () => change({search: search.value}));
    sort = select('sort by', Object.keys(SORTS).map(name => [name, name]), choice.sort);
    sort.addEventListener('input', () => change({sort: sort.value}));
    states = element('span', {className: 'states'});
    counted = element('span', {className: 'count', role: 'status'});
    fold = element('button', {type: 'button', textContent: 'Collapse all'});
    fold.addEventListener('click', () => { for (const card of cards.values()) if (card.isOpen) card.unfold(false); });
    link = element('a', {className: 'button', target: '_top'});
    top.append(element('h1', {textContent: 'Runs'}), states, counted, search,
      element('label', {}, 'sort by ', sort), fold, link);
  }
  const names = order, counts = {};
  for (const name of names) counts[cards.get(name).run.state] = (counts[cards.get(name).run.state] ?? 0) + 1;
  const known = Object.keys(WORDS).filter(state => counts[state]);
  const said = known.map(state => `${counts[state]} ${WORDS[state]}`).join(' · ') + choice.state;
  if (states.dataset.said !== said) {
    states.dataset.said = said;
    const chips = known.map(state => {
      const chip = element('button', {type: 'button', textContent: `${counts[state]} ${WORDS[state]}`, ariaPressed: String(choice.state === state)});
      chip.addEventListener('click', () => change({state: choice.state === state ? '' : state}));
      return chip;
    });
    const at = [...states.children].indexOf(document.activeElement);
    states.replaceChildren(...chips);
    if (at >= 0) chips[at]?.focus();
  }
  const shown = names.filter(name => !cards.get(name).root.hidden).length;
  setText(counted, shown === names.length ? '' : `${shown} of ${names.length} shown`);
  const chosen = names.filter(name => cards.get(name).box.checked);
  setText(link, chosen.length ? `Compare ${chosen.length} in Time Series` : 'All in Time Series');
  const address = timeSeries(chosen);
  if (link.getAttribute('href') !== address) link.href = address;
  overlay.update(chosen.length > 1 ? chosen : [], chosen.map(name => cards.get(name).run.step), colours()).catch(() => {});
  top.classList.toggle('none', !names.length);
  if (!names.length && !list.children.length) {
    list.append(element('div', {className: 'empty'}, 'No runs yet. ', element('code', {textContent: 'make train'}),
      ' starts one; it appears here by itself.'));
  } else if (names.length) {
    list.querySelector('.empty')?.remove();
  }
}

/** Run → the colour that Time Series gives it: it goes through its colours in the order in which the runs began. */
function colours() {
  const begun = [...order].sort((a, b) => compare(cards.get(a).run.started, cards.get(b).run.started) || compare(a, b));
  const palette = [isDark() ? SLATE : TENSORBOARDS[0], ...TENSORBOARDS.slice(1)];
  return new Map(begun.map((name, place) => [name, palette[place % palette.length]]));
}

/** TensorBoard's own page with only these runs. */
function timeSeries(names) {
  const root = new URL('../../../', document.baseURI).pathname;
  if (!names.length) return `${root}#timeseries`;
  const escaped = names.map(name => name.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&'));
  return `${root}?${new URLSearchParams({runFilter: `^(${escaped.join('|')})$`})}#timeseries`;
}

class Card {
  constructor(name) {
    this.isNew = true;
    this.seen = this.isOpen = false;
    this.box = element('input', {type: 'checkbox', ariaLabel: `select ${name}`});
    this.box.checked = choice.ticked.has(name);
    this.box.addEventListener('change', () => {
      choice.ticked[this.box.checked ? 'add' : 'delete'](name);
      note();
      head();
    });
    this.name = element('button', {className: 'name', textContent: name, ariaExpanded: 'false'});
    this.name.addEventListener('click', () => this.unfold(!this.isOpen));
    this.state = element('span', {className: 'state'});
    this.bar = element('i');
    this.done = element('span');
    this.progress = element('div', {className: 'progress', role: 'progressbar', ariaLabel: `progress of ${name}`},
      this.bar, this.done);
    this.figures = ['loss', 'accuracy', 'validation', 'test'].map(label => {
      const value = element('span', {textContent: '–'});
      return {value, root: element('div', {className: 'figure'}, element('small', {textContent: label}), value)};
    });
    this.spark = svg('svg', {class: 'spark', viewBox: '0 0 120 30', preserveAspectRatio: 'none', role: 'img',
      'aria-label': `accuracy of ${name}`});
    this.root = element('article', {className: 'run'}, element('div', {className: 'row'}, this.box, this.name,
      this.state, this.progress, ...this.figures.map(figure => figure.root), this.spark));
    visibility.observe(this.root);
    owners.set(this.root, this);
  }

  update(run, now) {
    this.run = run;
    this.stale = true;
    this.root.className = `run ${run.state}`;
    setText(this.state, WORDS[run.state] ?? run.state);
    this.state.title = HINTS[run.state] ?? run.error ?? '';
    const share = run.steps ? run.step / run.steps : 0;
    this.bar.style.width = `${100 * share}%`;
    this.progress.setAttribute('aria-valuenow', Math.round(100 * share));
    setText(this.done, run.steps ? `${Math.floor(100 * share)} % · epoch ${run.epoch} of ${run.epochs}`
      : `${count(run.step ?? 0)} steps`);
    [fixed(run.loss, 4), ...[run.accuracy, run.val_accuracy, run.test_accuracy].map(value => percent(value))].forEach((text, i) =>
      setText(this.figures[i].value, text));
    this.age = run.written === undefined ? null : now - run.written;
  }

  unfold(open) {
    this.isOpen = open;
    this.name.setAttribute('aria-expanded', open);
    if (open && !this.detail) {
      this.facts = element('dl', {className: 'facts'});
      this.curves = new Curves(this.run.run);
      this.image = element('img', {alt: '', hidden: true});
      this.caption = element('figcaption');
      this.picture = element('figure', {className: 'picture'}, this.caption, this.image);
      this.machine = new Machine(this.run.run, ask);
      this.result = new Result(this.run.run, ask, pixels => {
        this.machine.showImage(pixels);
        this.machine.root.scrollIntoView({block: 'start', behavior: 'smooth'});
      });
      this.detail = element('div', {className: 'detail'}, this.facts, this.curves.root, this.machine.root,
        this.result.root, this.picture);
    }
    if (open) {
      this.list();
      this.root.append(this.detail);
    } else this.detail?.remove();
    this.stale = true;
    this.draw();
  }

  /** Draws what has changed, if it can be seen; else when it comes into view. Every poll comes by here. */
  async draw() {
    if (!this.seen || !this.stale || this.busy || !this.run) return;
    this.busy = true;
    this.stale = false;
    try {
      if (this.isOpen) this.list();
      const {curves} = await (await ask(`curves?run=${encodeURIComponent(this.run.run)}`)).json();
      await together();
      sparkline(this.spark, curves.accuracy ?? {});
      if (this.isOpen) {
        this.curves.draw(curves, this.run);
        await this.look();
        await this.machine.update(this.run);
        await this.result.update(this.run);
      }
    } catch (error) {
      this.stale = true;
    }
    this.busy = false;
  }

  list() {
    const run = this.run;
    const rows = [
      ['state', run.error ? `${WORDS[run.state]}: ${run.error}` : HINTS[run.state] ?? phase(run)],
      ['test result', run.test_accuracy == null ? null : `${percent(run.test_accuracy)} of ${count(run.test_images)} images`,
        'result'],
      ['test loss', fixed(run.test_loss, 4)],
      ['epoch', run.epochs ? `${run.epoch} of ${run.epochs}` : null],
      ['batch', run.batches ? `${count(run.batch)} of ${count(run.batches)}` : null],
      ['step', run.steps ? `${count(run.step)} of ${count(run.steps)}` : count(run.step ?? 0)],
      ['training', both(run.loss, run.accuracy)],
      ['validation', both(run.val_loss, run.val_accuracy)],
      ['learning rate', run.lr == null ? null : Number(run.lr.toPrecision(3)).toString()],
      ['images/s', run.images_per_second == null ? null : count(Math.round(run.images_per_second))],
      ['elapsed', run.seconds == null ? null : duration(run.seconds)],
      ['remaining', run.state === 'running' && run.remaining != null ? duration(run.remaining) : null],
      ['dataset', run.dataset],
      ['device', run.device ? `${run.device}, ${run.precision}` : null],
      ['written', this.age == null ? null : `${duration(Math.max(0, this.age))} ago`],
    ].filter(([, value]) => value && value !== '–');
    const shown = rows.map(([label, value, kind]) => [element('dt', {textContent: label}),
      element('dd', {textContent: value, className: kind ?? ''})]);
    this.facts.replaceChildren(...shown.flat());
  }

  async look() {
    const run = this.run, version = `${run.state === 'completed'}/${run.epoch}/${run.val_accuracy}/${run.test_accuracy}`;
    if (version === this.pictured) return;
    const answer = await ask(`picture?run=${encodeURIComponent(run.run)}`);
    if (answer.status !== 200) return;
    const address = URL.createObjectURL(await answer.blob());
    if (this.image.src) URL.revokeObjectURL(this.image.src);
    this.image.src = address;
    this.image.hidden = false;
    this.pictured = version;
    const final = run.state === 'completed' && run.test_accuracy != null;
    setText(this.caption, final ? 'Final result: random test images, with the predictions of the best weights'
      : 'Test images, with the current predictions');
    this.image.alt = this.caption.textContent;
  }
}

/** Until a moment that all who wait share: what several cards draw is then one frame of the browser's, not one each. */
let shared;
function together() {
  shared ??= new Promise(resolve => setTimeout(() => {
    shared = undefined;
    resolve();
  }, TOGETHER_MS));
  return shared;
}

const owners = new WeakMap();
const visibility = new IntersectionObserver(entries => {
  for (const entry of entries) {
    const card = owners.get(entry.target);
    card.seen = entry.isIntersecting;
    card.draw();
  }
}, {rootMargin: '100px'});

/** The two charts of a run, and how they are drawn. */
class Curves {
  constructor(name) {
    this.charts = ['loss', 'accuracy'].map(kind => {
      const holder = element('div', {className: 'plot'});
      const scales = [['linear', 'linear'], ['log', 'logarithmic'], ...(kind === 'accuracy' ? [['percent', 'last percent']] : [])];
      const scale = select(`scale of ${kind}`, scales, kind === 'accuracy' ? 'percent' : 'log');
      scale.addEventListener('change', () => this.draw());
      return {kind, scale, holder, chart: new Chart(holder, `${kind} of ${name}`)};
    });
    this.axis = select('horizontal axis', [['step', 'by step'], ['epoch', 'by epoch'], ['time', 'by time']], 'step');
    this.smoothing = element('input', {type: 'range', min: 0, max: 0.99, step: 0.01, value: 0, ariaLabel: 'smoothing'});
    for (const choice of [this.axis, this.smoothing]) choice.addEventListener('input', () => this.draw());
    const key = ['train', 'val'].map(split => element('span', {className: split, textContent: SPLITS[split]}));
    this.root = element('div', {className: 'curves'},
      element('div', {className: 'choices'}, ...key, this.axis, element('label', {}, 'smoothing ', this.smoothing)),
      ...this.charts.map(({kind, scale, holder}) => element('figure', {className: 'chart'},
        element('figcaption', {}, element('b', {textContent: kind}), scale), holder)));
  }

  /** curves: kind → split → [step, value, wall time]. run: that they are of. */
  draw(curves = this.curves, run = this.run) {
    Object.assign(this, {curves, run});
    if (!curves) return;
    const {batches, started} = run;
    this.axis.options[1].disabled = !batches;
    const axis = this.axis.value, style = getComputedStyle(document.documentElement);
    const at = {step: point => point[0], epoch: point => point[0] / batches, time: point => point[2] - started}[axis];
    for (const {kind, scale, chart} of this.charts) {
      const lines = Object.entries(curves[kind] ?? {}).filter(([, points]) => points.length).map(([split, points]) =>
        curveLine({name: SPLITS[split], colour: style.getPropertyValue(`--${split}`).trim(), split, alpha: 1,
          steps: points.map(at), values: points.map(([, value]) => value)}));
      chart.show(lines, {axis, scale: scale.value === 'percent' && !isShare(lines) ? 'linear' : scale.value,
        smoothing: +this.smoothing.value});
    }
  }

  destroy() {
    for (const {chart} of this.charts) chart.destroy();
  }
}

function select(label, options, value) {
  const made = element('select', {ariaLabel: label},
    ...options.map(([value, textContent]) => element('option', {value, textContent})));
  made.value = value;
  return made;
}

function sparkline(where, lines) {
  lines = trained(lines);
  if (!Object.values(lines).flat().length) return where.replaceChildren();
  const [x, y] = scales(lines, 1, 119, 28, 2);
  where.replaceChildren(...Object.entries(lines).map(([line, points]) =>
    svg('path', {class: line, d: path(points, x, y)})));
}

/** Without the untrained network's point, which would press all others into a corner, once there are others. */
function trained(lines) {
  return Object.fromEntries(Object.entries(lines).map(([line, points]) =>
    [line, points.length > 1 ? points.filter(([step]) => step > 0) : points]));
}

/** Linear scales over all lines. The outermost fiftieth of the values stops at the edge, but never a newest one. */
function scales(lines, left, right, bottom, top) {
  const all = Object.values(lines).flat().filter(([, value]) => Number.isFinite(value));
  const values = all.map(([, value]) => value).sort((a, b) => a - b);
  const newest = Object.values(lines).map(points => points.at(-1)?.[1]).filter(Number.isFinite);
  const low = Math.min(values[Math.floor(values.length * 0.02)] ?? 0, ...newest);
  const high = Math.max(values[Math.ceil(values.length * 0.98) - 1] ?? 1, ...newest);
  const last = Math.max(...all.map(([step]) => step), 1);
  const share = value => high > low ? Math.min(Math.max((value - low) / (high - low), 0), 1) : 0.5;
  const x = step => left + (right - left) * step / last;
  const y = value => bottom - (bottom - top) * share(value);
  return [Object.assign(x, {high: last}), Object.assign(y, {low, high})];
}

function path(points, x, y) {
  return points.filter(point => Number.isFinite(point[1]))
    .map(([step, value], i) => `${i ? 'L' : 'M'}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join('');
}

function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function fixed(value, digits) {
  return value == null ? '–' : Math.abs(value) < 1e5 ? value.toFixed(digits) : value.toExponential(2);
}

/** Rounded, but only all is 100 %. */
function percent(value, digits = 2) {
  if (value == null) return '–';
  const most = value < 1 ? 100 - 10 ** -digits : 100;
  return `${Math.min(100 * value, most).toFixed(digits)} %`;
}

/** A loss and an accuracy, as one says them. */
function both(loss, accuracy) {
  return loss == null && accuracy == null ? null : `${percent(accuracy)}, loss ${fixed(loss, 4)}`;
}

function duration(seconds) {
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60);
  if (minutes < 1) return `${whole} s`;
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function phase(run) {
  return run.state === 'running' && run.phase !== 'training' ? `running: ${run.phase}` : WORDS[run.state];
}

const isDark = () => document.documentElement.classList.contains('dark');

/** Dark where TensorBoard is dark. */
function followTheme() {
  const theirs = (() => {
    try {
      return window.parent.document.body;
    } catch {
      return document.body;
    }
  })();
  const apply = () => document.documentElement.classList.toggle('dark', theirs.classList.contains('dark-mode'));
  new MutationObserver(apply).observe(theirs, {attributes: true, attributeFilter: ['class']});
  apply();
}
