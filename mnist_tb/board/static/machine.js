// The time machine: what the network of each epoch makes of a digit that is drawn, or of a watched test image.
//
// The weights of every epoch come from the event file; all that is shown is computed here, a few milliseconds an image.

import {Chart, colour} from './charts.js';
import {element} from './dom.js';
import {Pad} from './draw.js';
import {canvas, grey, paint, parts, signed} from './maps.js';
import {evidence, forward, parse, parseSamples, probabilities} from './network.js';

const BEST = 'best';  // beside the epochs: the weights with the best validation result
const PLAY_MS = 350;
const LAYERS = {
  conv1: {title: 'first layer: 16 maps', columns: 8, zoom: 4},
  conv2: {title: 'second layer: 32 maps', columns: 16, zoom: 5},
  conv3: {title: 'third layer: 64 maps', columns: 16, zoom: 5},
};

export class Machine {
  /** name: the run's. ask: fetches an address of the plugin, and gives the answer. */
  constructor(name, ask) {
    this.name = name;
    this.address = path => ask(`${path}${path.includes('?') ? '&' : '?'}run=${encodeURIComponent(name)}`);
    this.networks = new Map();  // epoch, or BEST → network
    this.times = [];            // what the slider goes through: epochs, and at last BEST
    this.course = new Map();    // epoch → probabilities of what is looked at
    this.samples = [];
    this.follows = true;        // the newest, until somebody moves the slider
    this.build();
  }

  build() {
    this.pad = new Pad(this.name, pixels => this.look(pixels));
    this.seen = canvas('what the network sees', 'seen');
    this.bars = element('ol');
    this.bars.setAttribute('aria-live', 'polite');
    this.strip = element('div', {className: 'strip'});
    this.play = element('button', {type: 'button', textContent: '▶', ariaLabel: 'play the epochs'});
    this.play.addEventListener('click', () => this.toggle());
    this.slider = element('input', {type: 'range', min: 0, max: 0, step: 1, value: 0, ariaLabel: 'epoch'});
    this.slider.addEventListener('input', () => this.goTo(+this.slider.value));
    this.when = element('output');
    this.plot = element('div', {className: 'plot'});
    this.chart = new Chart(this.plot, `probabilities of what was drawn for ${this.name}`);
    this.layers = element('div', {className: 'layers'});
    this.lens = element('div', {className: 'lens', hidden: true});
    this.caption = element('figcaption');
    this.time = element('div', {className: 'time'}, this.play, this.slider, this.when);
    this.root = element('figure', {className: 'pad', hidden: true}, this.caption, this.time,
      element('div', {className: 'draw'}, this.pad.paper, this.pad.clear), element('div', {className: 'sees'}, this.seen, this.bars),
      this.plot, this.strip, this.layers, this.lens);
  }

  destroy() {
    clearInterval(this.playing);
    this.chart.destroy();
  }

  /** Fetches what is new of the run, and shows it. */
  async update(run) {
    const version = `${run.epoch}/${run.state}/${run.test_accuracy}`;
    if (version === this.version || this.asking) return;
    this.asking = true;
    this.networks.delete(BEST);  // a run that was resumed may have a better one
    try {
      const {epochs} = await (await this.address('epochs')).json();
      const times = epochs.map(([epoch]) => epoch);
      this.steps = new Map(epochs);
      if (run.test_accuracy != null && await this.network(BEST)) times.push(BEST);
      if (!this.samples.length && epochs.length) await this.fetchSamples();
      this.version = version;
      if (String(times) === String(this.times)) return;
      const now = this.times[+this.slider.value];
      this.times = times;
      this.slider.max = Math.max(0, times.length - 1);
      this.time.hidden = times.length < 2;
      this.root.hidden = !times.length;
      if (times.length) await this.goTo(this.follows ? times.length - 1 : Math.max(0, times.indexOf(now)), this.follows);
      await this.trace();
    } finally {
      this.asking = false;
    }
  }

  /** The network of an epoch, or the best one; null where there is none. */
  async network(time) {
    if (!this.networks.has(time)) {
      const answer = await this.address(time === BEST ? 'weights' : `weights?epoch=${time}`);
      if (answer.status !== 200) return null;
      this.networks.set(time, parse(await answer.arrayBuffer()));
    }
    return this.networks.get(time);
  }

  async fetchSamples() {
    const answer = await this.address('samples');
    if (answer.status !== 200) return;
    this.samples = parseSamples(await answer.arrayBuffer());
    this.strip.replaceChildren(...this.samples.map(({pixels}, i) => {
      const picture = canvas('', 'sample');
      paint(picture, 28, [pixels], 1, value => grey(value / 255));
      const button = element('button', {type: 'button', ariaLabel: `test image ${i + 1}`}, picture, element('span'));
      button.addEventListener('click', () => this.showImage(pixels));
      return button;
    }));
    if (!this.pixels && this.samples.length) this.showImage(this.samples[0].pixels);
  }

  /** Shows the epoch at a place of the slider. follows: whether later ones are gone to as they come. */
  async goTo(place, follows = place === this.times.length - 1) {
    this.follows = follows;
    this.slider.value = place;
    const time = this.times[place], network = await this.network(time);
    if (!network || this.times[+this.slider.value] !== time) return;
    Object.assign(this, {current: network, now: time});
    if (this.bars.children.length !== network.classes.length) this.nameClasses(network.classes);
    this.when.textContent = time === BEST ? 'the best weights'
      : `${time === 0 ? 'untrained' : `after epoch ${time}`}, step ${(this.steps.get(time) ?? 0).toLocaleString('en')}`;
    this.slider.setAttribute('aria-valuetext', this.when.textContent);
    this.show();
    this.drawCourse();
    await this.judge(network);
  }

  nameClasses(classes) {
    const kind = classes.every(name => /^\d$/.test(name)) ? 'a digit' : 'one of these';
    this.caption.textContent = `Draw ${kind}${this.samples.length ? ', or choose a test image' : ''}: what the network of each epoch makes of it`;
    this.bars.replaceChildren(...classes.map((name, k) => {
      const bar = element('i');
      bar.style.setProperty('--accent', colour(k));
      const row = element('li', {}, element('b', {textContent: name}), bar, element('span'));
      row.addEventListener('click', () => { this.asked = k; this.show(); });
      return row;
    }));
  }

  /** Shows an image, 784 grey levels, as if it had been drawn, and looks at it. */
  showImage(pixels) {
    this.pad.show(pixels);
    this.look(pixels);
  }

  /** Looks at something else: pixels, or null for nothing. */
  look(pixels) {
    this.pixels = pixels;
    this.asked = null;
    this.course.clear();
    this.show();
    this.trace();
  }

  /** What the current network makes of what is looked at. */
  show() {
    const {current, pixels} = this;
    if (!current) return;
    paint(this.seen, 28, [pixels ?? new Uint8Array(784)], 1, value => grey(value / 255));
    const found = pixels ? forward(current, pixels) : null;
    const shares = found?.probabilities, best = shares ? shares.indexOf(Math.max(...shares)) : -1;
    [...this.bars.children].forEach((row, k) => {
      row.classList.toggle('best', k === best);
      row.children[1].style.setProperty('--share', shares ? shares[k] : 0);
      row.children[2].textContent = shares ? `${(100 * shares[k]).toFixed(1)} %` : '';
    });
    this.layers.hidden = !found;
    if (found) this.showLayers(found, this.asked ?? best);
  }

  showLayers(found, k) {
    const {current} = this;
    if (!this.layers.children.length) {
      this.filters = panel(this.layers, 'first layer: 16 filters', 'filters');
      this.maps = Object.fromEntries(Object.entries(LAYERS).map(([name, {title}]) => [name, panel(this.layers, title, name)]));
      for (const [name, {picture}] of Object.entries(this.maps)) {
        picture.addEventListener('pointermove', event => this.point(name, event));
        picture.addEventListener('pointerleave', () => { this.lens.hidden = true; });
      }
      this.evidence = panel(this.layers, '', 'evidence');
    }
    this.found = found;
    const kernels = current.layers['conv1.weight'].values, count = current.layers['conv1.weight'].shape[0];
    paint(this.filters.picture, 3, parts(kernels, 9), 8, signed(kernels), 8);
    this.filters.title.textContent = `first layer: ${count} filters`;
    for (const {name, maps, side} of found.layers.slice(1)) {
      const most = Math.max(1e-9, ...maps.map(map => Math.max(...map)));
      const {columns, zoom} = LAYERS[name];
      paint(this.maps[name].picture, side, maps, columns, value => grey(value / most), zoom);
      this.maps[name].title.textContent = `${LAYERS[name].title.split(':')[0]}: ${maps.length} maps`;
    }
    const speaks = evidence(current, found.layers.at(-1).maps, k);
    paint(this.evidence.picture, 7, [speaks], 1, signed(speaks), 20);
    this.evidence.title.textContent = `for (blue) and against (red) ${current.classes[k]}`;
  }

  /** Beside the pointer: the 3×3 kernels of a map, and the patches that they looked at there. */
  point(name, event) {
    const box = event.target.getBoundingClientRect(), at = this.found.layers.findIndex(layer => layer.name === name);
    const {side, maps} = this.found.layers[at], {columns} = LAYERS[name], before = this.found.layers[at - 1];
    const x = (event.clientX - box.left) / box.width * event.target.width;
    const y = (event.clientY - box.top) / box.height * event.target.height;
    const map = Math.floor(y / (side + 1)) * columns + Math.floor(x / (side + 1));
    const [column, row] = [Math.floor(x % (side + 1)), Math.floor(y % (side + 1))];
    this.lens.hidden = !(map < maps.length && column < side && row < side);
    if (this.lens.hidden) return;
    const weights = this.current.layers[`${name}.weight`], inputs = weights.shape[1];
    const kernels = weights.values.subarray(map * inputs * 9, (map + 1) * inputs * 9);
    const scale = before.side / side, middle = [row * scale, column * scale];  // of the pooled, the upper left one
    const patches = before.maps.map(from => Float32Array.from({length: 9}, (_, i) => {
      const [v, u] = [middle[0] + Math.floor(i / 3) - 1, middle[1] + i % 3 - 1];
      return v < 0 || u < 0 || v >= before.side || u >= before.side ? 0 : from[v * before.side + u];
    }));
    const wide = Math.min(inputs, 16), most = Math.max(1e-9, ...patches.map(patch => Math.max(...patch.map(Math.abs))));
    const [first, second] = [canvas('its kernels', ''), canvas('what they looked at', '')];
    paint(first, 3, parts(kernels, 9), wide, signed(kernels), 6);
    paint(second, 3, patches, wide, value => at === 1 ? signed([most])(value) : grey(value / most), 6);
    this.lens.replaceChildren(element('small', {textContent: `map ${map + 1}: ${maps[map][row * side + column].toFixed(2)} here; its kernels`}), first,
      element('small', {textContent: 'and the patch of each map before that they looked at'}), second);
    const inside = this.root.getBoundingClientRect();
    this.lens.style.left = `${Math.min(event.clientX - inside.left + 16, inside.width - 240)}px`;
    this.lens.style.top = `${event.clientY - inside.top + 16}px`;
  }

  /** The probabilities over all epochs, one after another, so that the page stays at hand. */
  async trace() {
    const {pixels} = this;
    this.drawCourse();
    if (!pixels) return;
    for (const time of this.times) {
      if (time === BEST || this.course.has(time)) continue;
      const network = await this.network(time);
      if (this.pixels !== pixels) return;
      if (network) this.course.set(time, probabilities(network, pixels));
      await new Promise(requestAnimationFrame);
      if (this.pixels !== pixels) return;
      this.drawCourse();
    }
  }

  drawCourse() {
    const epochs = [...this.course.keys()].sort((a, b) => a - b), classes = this.current?.classes ?? [];
    this.plot.hidden = epochs.length < 2;
    if (this.plot.hidden) return;
    this.chart.show(classes.map((name, k) => ({
      name, colour: colour(k), width: 2, dots: epochs.length <= 40 ? 1 : 0, steps: epochs,
      values: epochs.map(epoch => this.course.get(epoch)[k]),
    })), {axis: 'epochs', fromStart: true, mark: Number.isFinite(this.now) ? this.now : null});
  }

  /** What the current network takes the watched images for. */
  async judge(network) {
    for (const [i, {label, pixels}] of this.samples.entries()) {
      const shares = probabilities(network, pixels), best = shares.indexOf(Math.max(...shares));
      const button = this.strip.children[i];
      button.className = best === label ? 'right' : 'wrong';
      button.children[1].textContent = best === label ? network.classes[label] : `${network.classes[label]}→${network.classes[best]}`;
      if (i % 4 === 3) await new Promise(requestAnimationFrame);
      if (this.current !== network) return;
    }
  }

  toggle() {
    const plays = this.playing !== undefined;
    clearInterval(this.playing);
    this.playing = undefined;
    this.play.textContent = plays ? '▶' : '❚❚';
    this.play.setAttribute('aria-label', plays ? 'play the epochs' : 'pause');
    if (plays) return;
    if (+this.slider.value >= this.times.length - 1) this.goTo(0);
    this.playing = setInterval(() => {
      if (+this.slider.value >= this.times.length - 1) this.toggle();
      else this.goTo(+this.slider.value + 1);
    }, PLAY_MS);
  }
}

function panel(where, text, name) {
  const picture = canvas(text || name, `maps ${name}`), title = element('small', {textContent: text});
  where.append(element('div', {className: `panel ${name}`}, title, picture));
  return {picture, title};
}
