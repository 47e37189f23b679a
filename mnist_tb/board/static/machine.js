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
const ORDINALS = ['first', 'second', 'third', 'fourth', 'fifth'];
const columnsOf = side => side > 7 ? 8 : 16, zoomOf = side => side > 7 ? 4 : 5;

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
    this.pad = new Pad(this.name, pixels => this.look(pixels), () => this.say());
    this.seen = canvas('what the network sees', 'seen');
    this.bars = element('ol');
    this.heard = element('p', {className: 'heard', role: 'status'});  // one sentence, when the drawing has ended
    this.strip = element('div', {className: 'strip'});
    this.play = element('button', {type: 'button', textContent: '▶', ariaLabel: 'play the epochs'});
    this.play.addEventListener('click', () => this.toggle());
    this.slider = element('input', {type: 'range', min: 0, max: 0, step: 1, value: 0, ariaLabel: 'epoch'});
    this.slider.addEventListener('input', () => this.tell(this.goTo(+this.slider.value)));
    this.when = element('output');
    this.when.setAttribute('aria-live', 'off');  // the slider says it
    this.plot = element('div', {className: 'plot'});
    this.chart = new Chart(this.plot, `probabilities of what was drawn for ${this.name}`);
    this.layers = element('div', {className: 'layers'});
    this.lens = element('div', {className: 'lens', hidden: true});
    this.caption = element('figcaption');
    this.time = element('div', {className: 'time'}, this.play, this.slider, this.when);
    this.root = element('figure', {className: 'pad', hidden: true}, this.caption, this.heard, this.time,
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
      if (String(times) !== this.shown) {
        const now = this.times[+this.slider.value];
        this.times = times;
        this.slider.max = Math.max(0, times.length - 1);
        this.time.hidden = times.length < 2;
        this.root.hidden = !times.length;
        const place = this.follows ? times.length - 1 : Math.max(0, times.indexOf(now));
        if (times.length) await this.goTo(place, this.follows);
        await this.trace();
        this.shown = String(times);
      }
      this.version = version;
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
    this.root.classList.toggle('unknown', !!network.unknown);
    if (network.unknown) {
      this.caption.textContent = `The time machine does not compute this network: it does not know ${network.unknown}.`;
      return;
    }
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
    const others = this.samples.length ? ', or choose a test image' : '';
    this.caption.textContent = `Draw ${kind}${others}: what the network of each epoch makes of it`;
    this.bars.replaceChildren(...classes.map((name, k) => {
      const bar = element('i');
      bar.style.setProperty('--accent', colour(k));
      const row = element('button', {type: 'button'}, element('b', {textContent: name}), bar, element('span'));
      row.addEventListener('click', () => { this.asked = k; this.show(); });
      return element('li', {}, row);
    }));
  }

  /** Shows an image, 784 grey levels, as if it had been drawn, and looks at it. */
  showImage(pixels) {
    this.pad.show(pixels);
    this.look(pixels);
    this.say();
  }

  /** Says to those who do not see the bars what the network takes it for. */
  say() {
    const best = this.bars.querySelector('.best');
    this.heard.textContent = best?.innerText ?? '';
  }

  /** Looks at something else: pixels, or null for nothing. */
  look(pixels) {
    this.pixels = pixels;
    this.asked = null;
    this.course.clear();
    this.show();
    this.tell(this.trace());
  }

  /** Says why something that a person asked for does not come. */
  tell(promise) {
    promise.catch(error => { this.when.textContent = error.message; });
  }

  /** What the current network makes of what is looked at. */
  show() {
    const {current, pixels} = this;
    if (!current) return;
    paint(this.seen, 28, [pixels ?? new Uint8Array(784)], 1, value => grey(value / 255));
    const found = pixels ? forward(current, pixels) : null;
    const shares = found?.probabilities, best = shares ? shares.indexOf(Math.max(...shares)) : -1;
    [...this.bars.children].forEach((row, k) => {
      const [, bar, text] = row.firstChild.children;
      row.classList.toggle('best', k === best);
      bar.style.setProperty('--share', shares ? shares[k] : 0);
      text.textContent = shares ? `${(100 * shares[k]).toFixed(1)} %` : '';
    });
    this.layers.hidden = !found;
    if (found) this.showLayers(found, this.asked ?? best);
  }

  showLayers(found, k) {
    const {current} = this;
    if (!this.layers.children.length) {
      this.filters = panel(this.layers, 'filters', 'filters');
      this.maps = Object.fromEntries(found.layers.slice(1).map(({name}) => [name, panel(this.layers, name, name)]));
      for (const [name, {picture}] of Object.entries(this.maps)) {
        picture.addEventListener('pointermove', event => this.point(name, event));
        picture.addEventListener('pointerleave', () => { this.lens.hidden = true; });
      }
      this.evidence = panel(this.layers, '', 'evidence');
    }
    this.found = found;
    const {values: kernels, shape: [count, , size]} = current.layers[`${found.layers[1].name}.weight`];
    paint(this.filters.picture, size, parts(kernels, size * size), 8, signed(kernels), 8);
    this.filters.title.textContent = `first layer: ${count} filters`;
    for (const [i, {name, maps, side}] of found.layers.slice(1).entries()) {
      const most = Math.max(1e-9, ...maps.map(map => Math.max(...map)));
      paint(this.maps[name].picture, side, maps, columnsOf(side), value => grey(value / most), zoomOf(side));
      this.maps[name].title.textContent = `${ORDINALS[i] ?? `${i + 1}th`} layer: ${maps.length} maps`;
    }
    const {maps, side} = found.layers.at(-1), speaks = evidence(current, maps, k);
    paint(this.evidence.picture, side, [speaks], 1, signed(speaks), 20);
    this.evidence.title.textContent = `for (blue) and against (red) ${current.classes[k]}`;
  }

  /** Beside the pointer: the kernels of a map, and the patches that they looked at there. */
  point(name, event) {
    const box = event.target.getBoundingClientRect(), at = this.found.layers.findIndex(layer => layer.name === name);
    const {side, maps} = this.found.layers[at], columns = columnsOf(side), before = this.found.layers[at - 1];
    const x = (event.clientX - box.left) / box.width * event.target.width;
    const y = (event.clientY - box.top) / box.height * event.target.height;
    const map = Math.floor(y / (side + 1)) * columns + Math.floor(x / (side + 1));
    const [column, row] = [Math.floor(x % (side + 1)), Math.floor(y % (side + 1))];
    this.lens.hidden = !(map < maps.length && column < side && row < side);
    if (this.lens.hidden) return;
    const {values, shape: [, inputs, size]} = this.current.layers[`${name}.weight`], taps = size * size;
    const kernels = values.subarray(map * inputs * taps, (map + 1) * inputs * taps), border = (size - 1) / 2;
    const scale = before.side / side, middle = [row * scale, column * scale];  // of the pooled, the upper left one
    const patches = before.maps.map(from => Float32Array.from({length: taps}, (_, i) => {
      const [v, u] = [middle[0] + Math.floor(i / size) - border, middle[1] + i % size - border];
      return v < 0 || u < 0 || v >= before.side || u >= before.side ? 0 : from[v * before.side + u];
    }));
    const wide = Math.min(inputs, 16), most = Math.max(1e-9, ...patches.map(patch => Math.max(...patch.map(Math.abs))));
    const [first, second] = [canvas('its kernels', ''), canvas('what they looked at', '')];
    paint(first, size, parts(kernels, taps), wide, signed(kernels), 6);
    paint(second, size, patches, wide, value => at === 1 ? signed([most])(value) : grey(value / most), 6);
    const here = maps[map][row * side + column].toFixed(2);
    this.lens.replaceChildren(element('small', {textContent: `map ${map + 1}: ${here} here; its kernels`}), first,
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
      if (network && !network.unknown) this.course.set(time, probabilities(network, pixels));
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
      const [own, taken] = [network.classes[label], network.classes[best]];
      button.children[1].textContent = best === label ? own : `${own}→${taken}`;
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
    if (+this.slider.value >= this.times.length - 1) this.tell(this.goTo(0));
    this.playing = setInterval(() => {
      if (+this.slider.value >= this.times.length - 1) this.toggle();
      else this.tell(this.goTo(+this.slider.value + 1));
    }, PLAY_MS);
  }
}

function panel(where, text, name) {
  const picture = canvas(text || name, `maps ${name}`), title = element('small', {textContent: text});
  where.append(element('div', {className: `panel ${name}`}, title, picture));
  return {picture, title};
}
