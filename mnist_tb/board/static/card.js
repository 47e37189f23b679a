// A run: its row, and what is below it when it is unfolded.

import {count} from './charts.js';
import {Console} from './console.js';
import {Curves, sparkline, svg} from './curves.js';
import {element, setText} from './dom.js';
import {Machine} from './machine.js';
import {Result} from './result.js';

const TOGETHER_MS = 50;
const LEAST_WAIT_MS = 1000, MOST_WAIT_MS = 30_000;  // before what could not be shown is tried again
export const WORDS = {running: 'running', completed: 'completed', interrupted: 'interrupted', pruned: 'pruned',
  failed: 'failed', silent: 'silent', unknown: 'unknown'};
const HINTS = {pruned: 'A sweep stopped it: others did better after as many epochs.',
  silent: 'Nothing was heard of its process for half a minute: it was killed, or its machine is gone.',
  unknown: 'Not written by mnist_tb: its curves are all that is known.'};

export class Card {
  /**
   * ask: fetches an address of the plugin, and gives the answer. ticked: whether the run is to be compared; tick: hears
   * the name and whether it is, when that changes.
   */
  constructor(name, ask, ticked, tick) {
    this.ask = ask;
    this.isNew = true;
    this.seen = this.isOpen = false;
    this.due = new Set();        // parts that have something new
    this.failures = new Map();   // part → {error, wait, again}: why it is not shown, and when it is tried again
    this.box = element('input', {type: 'checkbox', ariaLabel: `select ${name}`});
    this.box.checked = ticked;
    this.box.addEventListener('change', () => tick(name, this.box.checked));
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
    this.failure = element('p', {className: 'failure', hidden: true});
    this.root = element('article', {className: 'run'}, element('div', {className: 'row'}, this.box, this.name,
      this.state, this.progress, ...this.figures.map(figure => figure.root), this.spark), this.failure);
    visibility.observe(this.root);
    owners.set(this.root, this);
  }

  /** What is new of the run. What cannot be shown of it is named on its card, and costs no other one. */
  update(run) {
    this.run = run;
    this.heard = performance.now() - 1000 * (run.quiet ?? 0);
    for (const part of Object.keys(PARTS)) this.due.add(part);
    this.failures.delete('Its row');
    this.attempt('Its row', () => this.row());
  }

  row() {
    const {run} = this;
    this.root.className = `run ${run.state}`;
    setText(this.state, WORDS[run.state] ?? run.state);
    this.state.title = HINTS[run.state] ?? run.error ?? '';
    const share = run.steps ? run.step / run.steps : 0;
    this.bar.style.width = `${100 * share}%`;
    this.progress.setAttribute('aria-valuenow', Math.round(100 * share));
    const percents = `${Math.floor(100 * share)} %`;
    setText(this.done, run.epochs ? `${percents} · epoch ${run.epoch} of ${run.epochs}`
      : run.steps ? `${percents} of ${count(run.steps)} steps` : `${count(run.step ?? 0)} steps`);
    const texts = [fixed(run.loss, 4), percent(run.accuracy), percent(run.val_accuracy), percent(run.test_accuracy)];
    texts.forEach((text, i) => setText(this.figures[i].value, text));
    if (this.isOpen) this.list();  // at once, so that the row and the facts say the same
  }

  /** Shows a part; where that fails, the card says why, and when it is time it is tried again. */
  async attempt(part, show) {
    const before = this.failures.get(part);
    if (before && performance.now() < before.again) return;
    this.due.delete(part);
    try {
      await show();
      this.failures.delete(part);
    } catch (error) {
      const wait = Math.min(2 * (before?.wait ?? LEAST_WAIT_MS / 2), MOST_WAIT_MS);
      this.failures.set(part, {error, wait, again: performance.now() + wait});
      this.due.add(part);
    }
    const said = [...this.failures].map(([part, {error}]) => `${part} cannot be shown: ${error.message}`);
    setText(this.failure, said.join(' '));
    this.failure.hidden = !said.length;
  }

  /** Time goes by, also where no answer comes. */
  tick() {
    if (this.quiet?.isConnected) setText(this.quiet, this.ago());
  }

  ago() {
    return `${duration((performance.now() - this.heard) / 1000)} ago`;
  }

  unfold(open) {
    this.isOpen = open;
    this.name.setAttribute('aria-expanded', open);
    if (open && !this.detail) {
      this.facts = element('dl', {className: 'facts'});
      this.curves = new Curves(this.run.run, this.ask);
      this.image = element('img', {alt: '', hidden: true});
      this.caption = element('figcaption');
      this.picture = element('figure', {className: 'picture'}, this.caption, this.image);
      this.machine = new Machine(this.run.run, this.ask);
      this.result = new Result(this.run.run, this.ask, pixels => {
        this.machine.showImage(pixels);
        const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
        this.machine.root.scrollIntoView({block: 'start', behavior: still ? 'instant' : 'smooth'});
      });
      this.console = new Console(this.run.run, this.ask);
      this.detail = element('div', {className: 'detail'}, this.facts, this.curves.root, this.machine.root,
        this.result.root, this.picture, this.console.root);
    }
    if (open) {
      this.attempt('Its row', () => this.list());
      this.root.append(this.detail);
    } else this.detail?.remove();
    for (const part of Object.keys(PARTS)) this.due.add(part);
    this.draw();
  }

  /** Draws what has changed, if it can be seen; else when it comes into view. Every poll comes by here. */
  async draw() {
    if (!this.seen || this.busy || !this.run) return;
    this.busy = true;
    for (const [part, show] of Object.entries(PARTS)) {
      if (this.due.has(part) && (this.isOpen || part === ALWAYS)) await this.attempt(part, () => show(this));
    }
    this.busy = false;
  }

  async trace() {
    const {curves} = await (await this.ask(`curves?run=${encodeURIComponent(this.run.run)}`)).json();
    await together();
    sparkline(this.spark, curves.accuracy ?? {});
    if (this.isOpen) await this.curves.update(curves, this.run);
  }

  list() {
    const run = this.run;
    const rows = [
      ['state', run.error ? `${WORDS[run.state]}: ${run.error}` : HINTS[run.state] ?? phase(run)],
      ['tags', run.tags?.join(', ')],
      ['note', run.note],
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
      ['written', run.written ? new Date(1000 * run.written).toLocaleString('en-GB') : null],
      ['last news', run.quiet == null ? null : this.ago(), 'quiet'],
    ].filter(([, value]) => value && value !== '–');
    const shown = rows.map(([label, value, kind]) => [element('dt', {textContent: label}),
      element('dd', {textContent: value, className: kind ?? ''})]);
    this.facts.replaceChildren(...shown.flat());
    this.quiet = this.facts.querySelector('.quiet');
  }

  async look() {
    const {run} = this;
    const version = `${run.state === 'completed'}/${run.epoch}/${run.val_accuracy}/${run.test_accuracy}`;
    if (version === this.pictured) return;
    const answer = await this.ask(`picture?run=${encodeURIComponent(run.run)}`);
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

/** What is fetched for a card. All but the first one is below its row, where it is unfolded. */
const ALWAYS = 'Its curves';
const PARTS = {
  [ALWAYS]: card => card.trace(), 'Its picture': card => card.look(),
  'Its time machine': card => card.machine.update(card.run),
  'Its result': card => card.result.update(card.run), 'What it printed': card => card.console.update(),
};

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

function fixed(value, digits) {
  return value == null ? '–' : Math.abs(value) < 1e5 ? value.toFixed(digits) : value.toExponential(2);
}

/** Rounded, but only all is 100 %. */
/** As config/numbers.py: 0.99996 is 99.996 %, since not all is right. */
function percent(value) {
  if (value == null) return '–';
  let text = '';
  for (let digits = 2; digits < 7; digits++) {
    text = (100 * value).toFixed(digits);
    if ((+text > 0 && +text < 100) || value <= 0 || value >= 1) break;
  }
  return `${text} %`;
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
