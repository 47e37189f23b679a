// The curves of a run: two charts with their choices, and the small picture of them in its row.

import {Chart, curveLine, isShare} from './charts.js';
import {element, select} from './dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const SPLITS = {train: 'training', val: 'validation'};

/** The two charts of a run, and how they are drawn. */
export class Curves {
  /** name: the run's. ask: fetches an address of the plugin, and gives the answer. */
  constructor(name, ask) {
    this.ask = async between => (await (await ask(`curves?run=${encodeURIComponent(name)}&${between}`)).json()).curves;
    this.charts = ['loss', 'accuracy'].map(kind => {
      const holder = element('div', {className: 'plot'});
      const scales = [['linear', 'linear'], ['log', 'logarithmic'], ...(kind === 'accuracy' ? [['percent', 'last percent']] : [])];
      const scale = select(`scale of ${kind}`, scales, kind === 'accuracy' ? 'percent' : 'log');
      scale.addEventListener('change', () => this.draw());
      const one = {kind, scale, holder, wanted: null};
      one.chart = new Chart(holder, `${kind} of ${name}`, () => this.look(one).catch(() => {}));  // update() says it
      return one;
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

  /** curves: kind → split → [step, value, wall time], thinned. run: that they are of. */
  async update(curves, run) {
    Object.assign(this, {curves, run});
    this.draw();
    for (const one of this.charts) await this.look(one, true);
  }

  /** Where a point lies on the horizontal axis. */
  place([step, , time]) {
    return {step, epoch: step / this.run.batches, time: time - this.run.started}[this.axis.value];
  }

  /** Fetches what lies between the points where a chart is zoomed into. anew: also where nobody has moved it. */
  async look(one, anew = false) {
    const view = one.chart.view(), lines = Object.values(this.curves[one.kind]).filter(points => points.length);
    const first = points => (points.findLast(point => this.place(point) <= view.min) ?? points[0])[0];
    const last = points => (points.find(point => this.place(point) >= view.max) ?? points.at(-1))[0];
    const span = view && [Math.min(...lines.map(first)), Math.max(...lines.map(last))];
    if (String(span) === String(one.wanted) && !(span && anew)) return;
    one.wanted = span;
    const detail = span && (await this.ask(`from=${span[0]}&to=${span[1]}`))[one.kind];
    if (one.wanted !== span) return;  // it was moved meanwhile
    Object.assign(one, {span, detail});
    this.draw();
  }

  draw() {
    const {curves, run} = this;
    if (!curves) return;
    this.axis.options[1].disabled = !run.batches;
    const axis = this.axis.value;
    for (const {kind, scale, chart, span, detail} of this.charts) {
      const finer = (split, points) => !detail ? points : [...points.filter(([step]) => step < span[0]),
        ...detail[split] ?? [], ...points.filter(([step]) => step > span[1])];
      const known = Object.entries(curves[kind]).map(([split, points]) => [split, finer(split, points)]);
      const lines = known.filter(([, points]) => points.length).map(([split, points]) => curveLine({
        name: SPLITS[split], colour: `var(--${split})`, split, alpha: 1,
        steps: points.map(point => this.place(point)), values: points.map(([, value]) => value)}));
      chart.show(lines, {axis, scale: scale.value === 'percent' && !isShare(lines) ? 'linear' : scale.value,
        smoothing: +this.smoothing.value});
    }
  }

  destroy() {
    for (const {chart} of this.charts) chart.destroy();
  }
}

export function sparkline(where, lines) {
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

export function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
