// The runs that are ticked, one above another: their curves, seeds of one configuration as their mean with a band, and
// the settings in which they differ.

import {Chart, colour} from './charts.js';

const KINDS = ['loss', 'accuracy'];

export class Overlay {
  /** ask: fetches an address of the plugin, and gives the answer. */
  constructor(ask) {
    this.ask = ask;
    this.charts = KINDS.map(kind => {
      const holder = make('div', {className: 'plot'}), figure = make('figure', {className: 'chart'});
      figure.append(make('figcaption', {}, make('b', {textContent: kind})), holder);
      return {kind, figure, chart: new Chart(holder, `${kind} of the ticked runs`)};
    });
    this.about = make('p', {className: 'about'});
    this.table = make('table');
    this.root = make('section', {className: 'overlay', hidden: true, ariaLabel: 'ticked runs'},
      make('div', {className: 'curves'}, ...this.charts.map(({figure}) => figure)), this.about,
      make('div', {className: 'scroll'}, this.table));
  }

  /** names: of the ticked runs. version: says whether one of them has changed. */
  async update(names, version) {
    this.root.hidden = !names.length;
    const wanted = `${names}/${version}`;
    if (!names.length || wanted === this.shown || this.asking) return;
    this.asking = true;
    try {
      const query = names.map(name => `run=${encodeURIComponent(name)}`).join('&');
      this.draw(await (await this.ask(`means?${query}`)).json());
      this.shown = wanted;
    } finally {
      this.asking = false;
    }
  }

  draw({band, groups}) {
    const keys = [...new Set(groups.flatMap(({settings}) => Object.keys(settings)))]
      .filter(key => new Set(groups.map(({settings}) => JSON.stringify(settings[key]))).size > 1);
    const named = groups.map((group, i) => ({...group, colour: colour(i), name: label(group, keys)}));
    for (const {kind, chart} of this.charts) {
      const lines = named.flatMap(group => Object.entries(group.curves[kind] ?? {}).filter(([split]) => split !== 'test')
        .map(([split, points]) => line(group, split, points)));
      const isShare = lines.every(({values}) => values.every(value => value === null || (value >= 0 && value <= 1)));
      chart.show(lines, {scale: kind === 'loss' ? 'log' : isShare ? 'percent' : 'linear'});
    }
    const several = groups.some(({runs}) => runs.length > 1);
    this.about.textContent = `Thin: training; thick: validation.${several ? ` A line is the mean over a configuration's seeds, the band ${band}.` : ''}`;
    const head = make('tr', {}, ...['', 'runs', 'seeds', ...keys].map(text => make('th', {textContent: text})));
    const rows = named.map(({colour, runs, seeds, settings}) => {
      const mark = make('i', {className: 'swatch'});
      mark.style.background = colour;
      const cells = [runs.join(', '), String(seeds), ...keys.map(key => String(settings[key] ?? ''))];
      return make('tr', {}, make('td', {}, mark), ...cells.map(text => make('td', {textContent: text})));
    });
    this.table.replaceChildren(make('thead', {}, head), make('tbody', {}, ...rows));
  }
}

/** What a group is called: its settings that others have not, else its run. */
function label({runs, settings, seeds}, keys) {
  const known = keys.filter(key => settings[key] !== undefined).slice(0, 3);
  const own = known.map(key => `${key.replace('.name', '').split('.').at(-1)} ${settings[key]}`).join(', ');
  return own ? `${own}${seeds > 1 ? ` (n = ${seeds})` : ''}` : runs.length > 1 ? `${seeds} seeds` : runs[0];
}

function line(group, split, points) {
  const finite = value => Number.isFinite(value) ? value : null;
  const edge = sign => points.map(([, mean, deviation]) => finite(mean) === null ? null : mean + sign * (finite(deviation) ?? 0));
  const band = points.some(([, , deviation]) => finite(deviation) !== null);
  return {
    name: `${group.name}, ${split === 'train' ? 'training' : 'validation'}`, colour: group.colour,
    steps: points.map(([step]) => step), values: points.map(([, mean]) => finite(mean)),
    ...(band ? {low: edge(-1), high: edge(1)} : {}), ...(split === 'train' ? {width: 1, alpha: 0.5} : {width: 2.2}),
    dots: split === 'val' && points.length <= 40 ? 1 : 0,
  };
}

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
