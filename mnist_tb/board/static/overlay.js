// The runs that are ticked, one above another: their curves, seeds of one configuration as their mean with a band, and
// the settings in which they differ.

import {Chart, colour, curveLine, isShare} from './charts.js';
import {element} from './dom.js';

const KINDS = ['loss', 'accuracy'], SPLITS = {train: 'training', val: 'validation'};

export class Overlay {
  /** ask: fetches an address of the plugin, and gives the answer. */
  constructor(ask) {
    this.ask = ask;
    this.charts = KINDS.map(kind => {
      const holder = element('div', {className: 'plot'}), figure = element('figure', {className: 'chart'});
      figure.append(element('figcaption', {}, element('b', {textContent: kind})), holder);
      return {kind, figure, chart: new Chart(holder, `${kind} of the ticked runs`)};
    });
    this.about = element('p', {className: 'about'});
    this.table = element('table');
    this.root = element('section', {className: 'overlay', hidden: true, ariaLabel: 'ticked runs'},
      element('div', {className: 'curves'}, ...this.charts.map(({figure}) => figure)), this.about,
      element('div', {className: 'scroll', tabIndex: 0, role: 'region', ariaLabel: 'settings of the ticked runs'}, this.table));
  }

  /**
   * names: of the ticked runs. version: says whether one of them has changed. colours: run → the one it has in Time Series,
   * in the order in which they began; a group has that of its first run.
   */
  async update(names, version, colours) {
    this.root.hidden = !names.length;
    const wanted = `${names}/${version}/${names.map(name => colours.get(name))}`;
    if (!names.length || wanted === this.shown || this.asking) return;
    this.asking = true;
    try {
      const query = names.map(name => `run=${encodeURIComponent(name)}`).join('&');
      this.draw(await (await this.ask(`means?${query}`)).json(), colours);
      this.shown = wanted;
    } finally {
      this.asking = false;
    }
  }

  draw({about, groups}, colours) {
    const value = (settings, key) => Object.hasOwn(settings, key) ? settings[key] : '';
    const keys = [...new Set(groups.flatMap(({settings}) => Object.keys(settings)))]
      .filter(key => new Set(groups.map(({settings}) => value(settings, key))).size > 1);
    const taken = new Set();  // TensorBoard repeats its colours: on one chart, the second of a kind gets another one
    const named = groups.map((group, i) => {
      const first = [...colours.keys()].find(name => group.runs.includes(name));
      const own = colours.get(first), its = own && !taken.has(own) ? own : colour(i);
      taken.add(its);
      return {...group, colour: its, name: group.seeds > 1 ? `${group.name} (n = ${group.seeds})` : group.name};
    });
    for (const {kind, chart} of this.charts) {
      const lines = named.flatMap(({name, colour, seeds, curves}) => Object.entries(curves[kind] ?? {})
        .filter(([split]) => Object.hasOwn(SPLITS, split)).map(([split, points]) => curveLine({
          name: `${name}, ${SPLITS[split]}`, colour, split, steps: points.map(([step]) => step),
          values: points.map(([, mean]) => mean), deviation: seeds > 1 && points.map(([, , deviation]) => deviation),
        })));
      chart.show(lines, {scale: kind === 'loss' ? 'log' : isShare(lines) ? 'percent' : 'linear'});
    }
    this.about.textContent = `Thin: training; thick: validation. ${about}`;
    const head = element('tr', {}, element('td'),
      ...['runs', 'seeds', ...keys].map(textContent => element('th', {scope: 'col', textContent})));
    const rows = named.map(({colour, runs, seeds, settings}) => {
      const mark = element('i', {className: 'swatch'});
      mark.style.background = colour;
      const cells = [runs.join(', '), String(seeds), ...keys.map(key => value(settings, key))];
      return element('tr', {}, element('td', {}, mark), ...cells.map(text => element('td', {textContent: text})));
    });
    this.table.replaceChildren(element('thead', {}, head), element('tbody', {}, ...rows));
  }
}
