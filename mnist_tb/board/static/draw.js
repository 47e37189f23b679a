// A place to draw a digit, and what a run's best weights take it for, at once.

import {parse, prepare, probabilities} from './network.js';

const SIDE = 224, PEN = 18;

export class Pad {
  /** load: gives the exported weights, an ArrayBuffer; null where the run has none. */
  constructor(name, load) {
    this.load = load;
    this.paper = canvas(SIDE, `draw for ${name}`, 'paper');
    this.seen = canvas(28, 'what the network sees', 'seen');
    this.clear = Object.assign(document.createElement('button'), {textContent: 'Clear', type: 'button'});
    this.clear.addEventListener('click', () => this.wipe());
    this.bars = document.createElement('ol');
    this.bars.setAttribute('aria-live', 'polite');
    this.caption = document.createElement('figcaption');
    const sees = document.createElement('div');
    sees.className = 'sees';
    sees.append(this.seen, this.clear);
    this.root = document.createElement('figure');
    this.root.className = 'pad';
    this.root.hidden = true;
    this.root.append(this.caption, this.paper, sees, this.bars);
    this.pen = this.paper.getContext('2d', {willReadFrequently: true});
    this.paper.addEventListener('pointerdown', event => this.begin(event));
    this.paper.addEventListener('pointermove', event => this.move(event));
    for (const end of ['pointerup', 'pointercancel']) this.paper.addEventListener(end, () => { this.last = null; });
  }

  /** Fetches the weights, once; the pad is there as soon as they are. */
  async show() {
    if (this.network || this.asking) return;
    this.asking = true;
    try {
      const content = await this.load();
      if (!content) return;
      this.network = parse(content);
      const kind = this.network.classes.every(name => /^\d$/.test(name)) ? 'a digit' : 'one of these';
      this.caption.textContent = `Draw ${kind}: what the best weights take it for`;
      this.bars.replaceChildren(...this.network.classes.map(name => {
        const row = document.createElement('li'), bar = document.createElement('i'), share = document.createElement('span');
        row.append(Object.assign(document.createElement('b'), {textContent: name}), bar, share);
        return row;
      }));
      this.wipe();
      this.root.hidden = false;
    } finally {
      this.asking = false;
    }
  }

  wipe() {
    this.pen.fillStyle = '#000';
    this.pen.fillRect(0, 0, SIDE, SIDE);
    this.answer();
  }

  begin(event) {
    event.preventDefault();
    this.paper.setPointerCapture(event.pointerId);
    this.last = this.place(event);
    this.stroke(this.last);
  }

  move(event) {
    if (!this.last) return;
    const next = this.place(event);
    this.stroke(next);
    this.last = next;
  }

  place(event) {
    const box = this.paper.getBoundingClientRect();
    return [(event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height];
  }

  stroke(to) {
    Object.assign(this.pen, {lineWidth: PEN, lineCap: 'round', lineJoin: 'round', strokeStyle: '#fff'});
    this.pen.beginPath();
    this.pen.moveTo(...this.last);
    this.pen.lineTo(...to);
    this.pen.stroke();
    this.due ??= requestAnimationFrame(() => {
      this.due = undefined;
      this.answer();
    });
  }

  answer() {
    const {data} = this.pen.getImageData(0, 0, SIDE, SIDE);
    const pixels = prepare(Uint8Array.from({length: SIDE * SIDE}, (_, i) => data[4 * i]), SIDE);
    const shares = pixels ? probabilities(this.network, pixels) : null;
    this.look(pixels ?? new Uint8Array(784));
    const best = shares ? shares.indexOf(Math.max(...shares)) : -1;
    [...this.bars.children].forEach((row, i) => {
      row.classList.toggle('best', i === best);
      row.children[1].style.setProperty('--share', shares ? shares[i] : 0);
      row.children[2].textContent = shares ? `${(100 * shares[i]).toFixed(1)} %` : '';
    });
  }

  look(pixels) {
    const image = new ImageData(28, 28);
    pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
    this.seen.getContext('2d').putImageData(image, 0, 0);
  }
}

function canvas(side, label, className) {
  const made = Object.assign(document.createElement('canvas'), {width: side, height: side, className});
  made.setAttribute('role', 'img');
  made.setAttribute('aria-label', label);
  return made;
}
