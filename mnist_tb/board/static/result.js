// The test result: a confusion matrix whose cells show their images, and the mistakes, the most confident one first.

import {element, setText} from './dom.js';
import {canvas, grey, paint} from './maps.js';
import {parseResult} from './network.js';

const MOST_SHOWN = 96;

export class Result {
  /** name: the run's. ask: fetches an address of the plugin, and gives the answer. look: shows pixels to the network. */
  constructor(name, ask, look) {
    Object.assign(this, {name, ask, look});
    this.table = element('table', {ariaLabel: `confusion matrix of ${name}`});
    this.heading = element('figcaption');
    this.about = element('p', {className: 'about', role: 'status'});
    this.all = element('button', {type: 'button', textContent: 'All mistakes'});
    this.all.addEventListener('click', () => this.choose(null));
    this.strip = element('div', {className: 'strip'});
    this.root = element('figure', {className: 'matrix', hidden: true}, this.heading,
      element('div', {className: 'scroll'}, this.table), element('div', {}, this.about, this.strip, this.all));
  }

  /** Fetches the result of the run, once there is another one. */
  async update(run) {
    const version = `${run.state}/${run.test_accuracy}`;
    if (run.test_accuracy == null || version === this.version) return;
    const answer = await this.ask(`result?run=${encodeURIComponent(this.name)}`);
    if (answer.status !== 200) return;
    Object.assign(this, await parseResult(await answer.arrayBuffer()));
    this.root.hidden = false;
    this.draw();
    this.choose(null);
    this.version = version;
  }

  draw() {
    const {classes, counts} = this, sums = counts.map(row => row.reduce((a, b) => a + b, 0));
    const share = (row, column) => counts[row][column] / Math.max(sums[row], 1);
    const worst = Math.max(1e-9, ...counts.flatMap((row, i) => row.map((_, k) => i === k ? 0 : share(i, k))));
    const wrong = counts.flatMap((row, i) => row.filter((_, k) => i !== k)).reduce((a, b) => a + b, 0);
    const total = sums.reduce((a, b) => a + b, 0);
    setText(this.heading, `The test result of the best weights: ${wrong.toLocaleString('en')} mistakes in ${total.toLocaleString('en')}`
      + ' images. A row is the true class, a column the prediction; choose a cell to see its images.');
    const head = element('tr', {}, element('td'), ...classes.map(name => element('th', {scope: 'col', textContent: name})));
    const rows = classes.map((name, row) => element('tr', {}, element('th', {scope: 'row', textContent: name}),
      ...classes.map((_, column) => element('td', {}, this.cell(row, column,
        row === column ? share(row, column) : share(row, column) / worst)))));
    this.table.replaceChildren(element('thead', {}, head), element('tbody', {}, ...rows));
  }

  cell(row, column, strength) {
    const {classes, counts} = this, count = counts[row][column];
    const made = element('button', {type: 'button', textContent: count || '·', disabled: !count,
      className: row === column ? 'right' : 'wrong', ariaPressed: 'false',
      ariaLabel: row === column ? `${classes[row]}, recognised: ${count}` : `${classes[row]}, taken for ${classes[column]}: ${count}`});
    made.style.setProperty('--share', count ? Math.round(100 * strength) / 100 : 0);
    made.classList.toggle('strong', strength > 0.5);
    made.addEventListener('click', () => this.choose(this.chosen?.join() === `${row},${column}` ? null : [row, column]));
    return made;
  }

  /** Shows the images of a cell, or of all mistakes. cell: row and column, or null. */
  choose(cell) {
    this.chosen = cell;
    const {classes, counts, images} = this;
    const belongs = cell ? ({label, prediction}) => label === cell[0] && prediction === cell[1]
      : ({label, prediction}) => label !== prediction;
    const all = images.filter(belongs), shown = all.slice(0, MOST_SHOWN);
    [...this.table.tBodies[0].rows].forEach((row, i) => [...row.cells].slice(1).forEach((each, k) =>
      each.firstChild.setAttribute('aria-pressed', String(cell?.[0] === i && cell?.[1] === k))));
    this.all.hidden = !cell;
    const wrong = counts.flatMap((row, i) => row.filter((_, k) => i !== k)).reduce((a, b) => a + b, 0);
    const count = cell ? counts[cell[0]][cell[1]] : wrong;
    const what = !cell ? 'Mistakes' : cell[0] === cell[1] ? `${classes[cell[0]]}, recognised` : `${classes[cell[0]]}, taken for ${classes[cell[1]]}`;
    const order = cell && cell[0] === cell[1] ? 'the least confident first' : 'the most confident first';
    const part = shown.length < count ? `${shown.length} of ${count.toLocaleString('en')}` : String(count);
    setText(this.about, count ? `${what}: ${part}, ${order}. Choose one to look at it above.` : 'No mistakes.');
    this.strip.replaceChildren(...shown.map(image => this.thumbnail(image)));
  }

  thumbnail({index, label, prediction, confidence, pixels}) {
    const {classes} = this, picture = canvas('', 'sample'), right = label === prediction;
    paint(picture, 28, [pixels], 1, value => grey(value / 255));
    const taken = right ? classes[label] : `${classes[label]}→${classes[prediction]}`;
    const sure = `${Math.floor(100 * confidence)} %`;
    const made = element('button', {type: 'button', className: right ? 'right' : 'wrong', title: `test image ${index}`,
      ariaLabel: `test image ${index}: ${classes[label]}, taken for ${classes[prediction]}, ${sure}`}, picture,
      element('span', {textContent: taken}), element('small', {textContent: sure}));
    made.addEventListener('click', () => this.look(pixels));
    return made;
  }
}
