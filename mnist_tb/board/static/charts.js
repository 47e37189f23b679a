// Charts of curves, for the Live tab and the report: uPlot, which the page has loaded, and what both need of it.
//
// A line is {name, colour, steps, values, low, high, width, alpha, dots}: numbers, or null where there is a gap; low and
// high, if it has them, are the edges of a band around it. Lines need not have the same steps.

const COLOURS = ['#2f7ed8', '#e8710a', '#2ca05a', '#d6336c', '#8e5ad7', '#0fa3b1', '#a98307', '#d2483f', '#6f7f8f', '#b0569f'];
export const TENSORBOARDS = ['#425066', '#12b5cb', '#e52592', '#f9ab00', '#9334e6', '#7cb342', '#e8710a'];  // of its runs
export const SLATE = '#8e98a3';  // its first one on a dark page
const LISTED = 12;  // lines whose values are listed under the pointer
const LOGS = [[1, 2, 3, 5, 7], [1, 2, 5], [1]];  // round numbers of a decade, for one decade or two, three or four, more
const PERCENT = [0, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1];

export const colour = (i) => i < COLOURS.length ? COLOURS[i] : `hsl(${Math.round(i * 137.5) % 360} 60% 52%)`;
export const count = (n) => Math.round(n).toLocaleString('en');
/** All digits of a number that was written in 32 bits: the shortest that say which one it is. */
function exact(value) {
  const digits = [...Array(9).keys()].find((n) => Math.fround(+value.toPrecision(n + 1)) === Math.fround(value)) ?? 8;
  return String(+value.toPrecision(value === Math.fround(value) ? digits + 1 : 9));
}
export function short(value) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e3 && size < 1e7) return count(value);
  return size >= 1e7 || size < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(4));
}

// The exponential moving average, begun without a bias towards zero, as TensorBoard's Time Series smooths. A gap stays.
export function smooth(values, weight) {
  if (!weight) return values;
  let mean = 0, share = 1;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    share *= weight;
    return mean / (1 - share);
  });
}

// The line of a curve: {name, colour, split, steps, values, deviation}, deviation: half the width of a band, if it has
// one. Training is thin and pale; the others are thick, with dots where they are few, a large one for a test.
const STYLES = {train: {width: 1, alpha: 0.55}, val: {width: 2.2}, test: {width: 2.2}, '': {width: 1.3, alpha: 0.8}};
const FEW = 40;
export function curveLine({split, values, deviation, ...rest}) {
  const finite = values.map((value) => Number.isFinite(value) ? value : null);
  const few = finite.filter((value) => value !== null).length <= FEW;
  const edge = (sign) => finite.map((value, i) => value === null ? null : value + sign * (deviation[i] ?? 0));
  return {
    values: finite, ...(deviation ? {low: edge(-1), high: edge(1)} : {}), dots: split === 'train' || !few ? 0 : split === 'test' ? 1.7 : 1,
    ...STYLES[split], ...rest,
  };
}

// Whether all values lie between 0 and 1.
export const isShare = (lines) => lines.every(({values}) => values.every((value) => value === null || (value >= 0 && value <= 1)));

// A colour as it is now, in the light or the dark: `var(--name)` is that of the page.
const current = (colour) => !colour.startsWith('var(') ? colour
  : getComputedStyle(document.documentElement).getPropertyValue(colour.slice(4, -1)).trim();
const faded = (paint, alpha) => paint.startsWith('hsl(')
  ? paint.replace(')', ` / ${alpha})`)
  : paint + Math.round(alpha * 255).toString(16).padStart(2, '0');

// What lies on the horizontal axis: its word, how its numbers are written, and which are round.
const decimal = [1, 2, 5].flatMap((n) => [...Array(10).keys()].map((p) => n * 10 ** p)).sort((a, b) => a - b);
const MINUTE = 60, HOUR = 3600, DAY = 86400;
const clock = (seconds) => seconds < MINUTE ? `${+seconds.toFixed(1)} s`
  : seconds < HOUR ? `${Math.floor(seconds / MINUTE)}:${String(Math.floor(seconds % MINUTE)).padStart(2, '0')} min`
    : `${+(seconds / HOUR).toFixed(2)} h`;
const AXES = {
  step: {word: 'step', write: count, rounds: decimal},
  epochs: {word: 'epoch', write: count, rounds: decimal},  // whole ones
  epoch: {word: 'epoch', write: (epoch) => String(+epoch.toFixed(2)), rounds: [0.1, 0.2, 0.5, ...decimal]},
  time: {word: 'after', write: clock, rounds: [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, ...[1, 2, 5, 10, 15, 30].map((n) => n * MINUTE), ...[1, 2, 3, 6, 12].map((n) => n * HOUR), ...[1, 2, 5, 10].map((n) => n * DAY)]},
};

// How far apart values lie: evenly, by their order of magnitude, or by that of what an accuracy lacks of 100 %.
const LACK = 2e-4;
const SCALES = {
  linear: {distr: 1},
  log: {distr: 3},
  percent: {distr: 100, fwd: (v) => -Math.log10(1 + LACK - Math.min(v, 1)), bwd: (v) => 1 + LACK - 10 ** -v},
};

const LARGEST = 1e300;  // beyond it there are no round numbers
// The least and the largest value of what is shown from one step to another, with some room.
function extent(lines, from, to, scale) {
  let low = Infinity, high = -Infinity;
  for (const line of lines) {
    for (let i = 0; i < line.steps.length; i++) {
      if (line.steps[i] < from(line) || line.steps[i] > to) continue;
      const edges = scale === 'log' ? [line.high?.[i]] : [line.low?.[i], line.high?.[i]];  // a band may reach below zero
      for (const value of [line.values[i], ...edges.map((edge) => edge ?? null)]) {
        if (value === null || (scale === 'log' && value <= 0)) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
  }
  if (low > high) return [scale === 'log' ? 0.1 : 0, 1];
  [low, high] = [Math.max(low, -LARGEST), Math.min(high, LARGEST)];
  if (scale === 'log') return low === high ? [low / 2, high * 2] : [low / 1.05, high * 1.05];
  const room = (high - low) * 0.05 || Math.abs(high) * 0.05 || 0.5;
  return scale === 'percent' ? [Math.max(0, low - room), Math.min(1, high + room)] : [low - room, high + room];
}

export class Chart {
  // holder: an element, which the chart fills. name: what it shows. moved: is called when it is zoomed in or out.
  constructor(holder, name, moved = () => {}) {
    Object.assign(this, {holder, moved});
    this.choices = {scale: 'linear', axis: 'step', fromStart: false, smoothing: 0, mark: null};
    this.lines = [];
    this.tip = document.createElement('div');
    this.tip.className = 'tip';
    holder.setAttribute('role', 'img');
    holder.setAttribute('aria-label', `${name} by step`);
    holder.chart = this;
    this.resized = new ResizeObserver(() => this.plot?.setSize(this.size()));
    this.resized.observe(holder);
    this.theme = matchMedia('(prefers-color-scheme: dark)');
    this.repaint = () => this.plot?.redraw();
    this.theme.addEventListener('change', this.repaint);
    this.dark = new MutationObserver(this.repaint);  // TensorBoard's own switch
    this.dark.observe(document.documentElement, {attributeFilter: ['class']});
  }

  // Show these lines; those that are zoomed into stay so. The first quarter, where all falls steeply, does not decide
  // the scale, unless `fromStart`.
  show(lines, choices = {}) {
    this.choices = {...this.choices, ...choices};
    this.lines = lines.map((line) => {
      const smoothed = (values) => values && smooth(values, line.dots ? 0 : this.choices.smoothing);
      const [values, low, high] = [line.values, line.low, line.high].map(smoothed);
      if (this.choices.scale !== 'log') return {...line, values, low, high};
      const positive = (list, instead) => list?.map((value, i) => value === null || value > 0 ? value : instead(i));
      return {...line, high, values: positive(values, () => null), low: positive(low, (i) => values[i] > 0 ? values[i] / 1e3 : null)};
    });
    const kind = JSON.stringify([this.choices.scale, this.choices.axis, lines.map((l) => [l.name, l.colour, l.width, l.alpha, l.dots, !!l.low])]);
    const data = this.data();
    if (this.plot && this.kind === kind) {
      const zoomed = this.zoomed();
      this.plot.setData(data, !zoomed);
      if (zoomed) this.plot.redraw();
      return;
    }
    const {min, max} = this.zoomed() && this.drawnBy === this.choices.axis ? this.plot.scales.x : {};
    this.drawnBy = this.choices.axis;
    this.plot?.destroy();
    this.kind = kind;
    this.plot = new uPlot(this.options(), data, this.holder);
    this.plot.over.append(this.tip);
    this.tip.hidden = true;
    if (min !== undefined) this.plot.setScale('x', {min, max});
  }

  destroy() {
    this.resized.disconnect();
    this.theme.removeEventListener('change', this.repaint);
    this.dark.disconnect();
    this.plot?.destroy();
  }

  zoomed() {
    return !!this.view();
  }

  // The part that is zoomed into, {min, max}; null where all is shown.
  view() {
    const data = this.plot?.data[0], {min, max} = this.plot?.scales.x ?? {};
    return data?.length && min != null && (min > data[0] || max < data.at(-1)) ? {min, max} : null;
  }

  size() {
    return {width: Math.max(200, this.holder.clientWidth), height: 240};
  }

  data() {  // one row of steps for all; a line has no value at others' steps, and null where it has a gap
    if (!this.lines.length) return [[]];
    return uPlot.join(this.lines.map((line) => [line.steps, line.values, ...(line.low ? [line.low, line.high] : [])]));
  }

  options() {
    const ink = () => getComputedStyle(this.holder).getPropertyValue('--faint');
    const grid = {stroke: () => getComputedStyle(this.holder).getPropertyValue('--line'), width: 1};
    const axis = {stroke: ink, grid, ticks: {show: false}, font: '11px system-ui, sans-serif'};
    const {scale} = this.choices;
    const series = [{}], bands = [];
    for (const line of this.lines) {
      const show = !!line.dots, paint = () => current(line.colour);
      series.push({
        stroke: () => faded(current(line.colour), line.alpha ?? 1), width: line.width ?? 1.5, spanGaps: false,
        points: {show, size: 5 * (line.dots || 1), fill: paint, stroke: paint}, line,
      });
      if (!line.low) continue;
      series.push({width: 0, points: {show: false}}, {width: 0, points: {show: false}});
      bands.push({series: [series.length - 1, series.length - 2], fill: faded(line.colour, 0.18)});
    }
    return {
      ...this.size(), series, bands, legend: {show: false}, padding: [10, 12, 0, 0],
      scales: {
        x: {time: false, range: (u, min, max) => min === null ? [0, 1] : [min, min === max ? max + 1 : max]},
        y: {...SCALES[scale], range: (u) => this.range(u)},
      },
      axes: [
        {...axis, size: 28, gap: 4, incrs: AXES[this.choices.axis].rounds, values: (u, steps) => steps.map(AXES[this.choices.axis].write)},
        {...axis, size: 54, gap: 5, values: (u, values) => values.map((value) => value === null ? null : scale === 'percent' ? `${+(value * 100).toFixed(2)} %` : short(value)),
          ...(scale === 'linear' ? {} : {splits: (u, i, min, max) => this.rounds(min, max), filter: (u, splits) => this.apart(u, splits)})},
      ],
      cursor: {
        points: {size: 6}, drag: {x: true, y: false, dist: 6},
        dataIdx: (u, s, i) => this.nearest(u.data[s], i), focus: {prox: -1},
      },
      hooks: {
        setCursor: [(u) => this.point(u)], drawAxes: [(u) => this.drawMark(u)],
        setScale: [(u, key) => { if (key === 'x' && u === this.plot) this.moved(); }],
      },
    };
  }

  drawMark(u) {  // a line upwards from the step that is marked
    const {mark} = this.choices, {ctx} = u;
    if (mark === null || mark < u.scales.x.min || mark > u.scales.x.max) return;
    const x = Math.round(u.valToPos(mark, 'x', true));
    ctx.save();
    ctx.strokeStyle = getComputedStyle(this.holder).getPropertyValue('--faint');
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x, u.bbox.top);
    ctx.lineTo(x, u.bbox.top + u.bbox.height);
    ctx.stroke();
    ctx.restore();
  }

  range(u) {  // of what is about to be drawn: the scale of the steps is still the last one here
    const {scale, fromStart} = this.choices;
    const steps = u.data[0], [first, last] = u.series[0].idxs;
    const begin = (line) => line.steps[0] + (line.steps.at(-1) - line.steps[0]) / 4;
    const zoomed = first > 0 || last < steps.length - 1;
    return extent(this.lines, (line) => zoomed ? steps[first] : fromStart ? -Infinity : begin(line), zoomed ? steps[last] : Infinity, scale);
  }

  rounds(min, max) {  // the round numbers of an uneven scale; where it is short, of an even one
    const low = Math.floor(Math.log10(min)), decades = Math.ceil(Math.log10(max)) - low;
    const all = this.choices.scale === 'percent' ? PERCENT : Array.from({length: decades}, (_, d) => d + low)
      .flatMap((power) => LOGS[Math.min(Math.floor((decades - 1) / 2), 2)].map((n) => n * 10 ** power)).concat(10 ** (low + decades));
    const within = all.filter((value) => value >= min && value <= max);
    if (within.length > 2) return within;
    const step = 10 ** Math.floor(Math.log10((max - min) / 2));
    const every = [1, 2, 5].map((n) => n * step).find((n) => (max - min) / n <= 6) ?? 10 * step;
    return Array.from({length: 8}, (_, i) => +((Math.ceil(min / every) + i) * every).toPrecision(12)).filter((v) => v <= max);
  }

  apart(u, values) {  // those that have room for their label; the last ones, 99 % and above, first
    let above = -Infinity;
    return [...values].reverse().map((value) => {
      const at = u.valToPos(value, 'y');
      if (at - above < 14) return null;
      above = at;
      return value;
    }).reverse();
  }

  nearest(values, i) {  // the place of the value nearest to one place, of a line that has none there
    if (!values || (values[i] ?? null) !== null) return i;
    for (let away = 1; away < values.length; away++) {
      if ((values[i - away] ?? null) !== null) return i - away;
      if ((values[i + away] ?? null) !== null) return i + away;
    }
    return null;
  }

  // The values of all lines under the pointer, in the order in which they lie there.
  point(u) {
    const {left, idx} = u.cursor;
    this.tip.hidden = left < 0 || idx === null || idx === undefined;
    if (this.tip.hidden) return;
    const found = [];
    u.series.forEach((series, s) => {
      const i = u.cursor.idxs[s];
      if (series.line && i !== null && i !== undefined && (u.data[s][i] ?? null) !== null) {
        const spread = series.line.high ? (u.data[s + 2][i] ?? null) : null;
        found.push({line: series.line, step: u.data[0][i], value: u.data[s][i], spread: spread === null ? null : spread - u.data[s][i]});
      }
    });
    found.sort((a, b) => b.value - a.value);
    const head = document.createElement('b');
    const {word, write} = AXES[this.choices.axis];
    head.textContent = `${word} ${write(u.data[0][idx])}`;
    const rows = found.slice(0, LISTED).map(({line, step, value, spread}) => {
      const row = document.createElement('div'), mark = document.createElement('i');
      mark.style.background = line.colour;
      const at = step === u.data[0][idx] ? '' : `, at ${write(step)}`;
      const textContent = exact(value) + (spread === null ? '' : ` ± ${short(+spread.toPrecision(2))}`);
      row.append(mark, ` ${line.name} `, Object.assign(document.createElement('b'), {textContent}), at);
      return row;
    });
    const rest = found.length - rows.length;
    this.tip.replaceChildren(head, ...rows, ...(rest > 0 ? [`and ${rest} more`] : []));
    const right = left > u.over.clientWidth / 2;
    this.tip.style.left = right ? '' : `${left + 14}px`;
    this.tip.style.right = right ? `${u.over.clientWidth - left + 14}px` : '';
  }
}
