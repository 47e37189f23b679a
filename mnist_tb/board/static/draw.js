// A place to draw a digit with the mouse, a finger or a pen.

import {element} from './dom.js';
import {prepare} from './network.js';

const SIDE = 224, PEN = 18;

export class Pad {
  /** drawn: receives what was drawn as the network sees it, 784 grey levels; null for nothing. */
  constructor(name, drawn) {
    this.drawn = drawn;
    this.paper = element('canvas', {width: SIDE, height: SIDE, className: 'paper', role: 'img', ariaLabel: `draw for ${name}`});
    this.clear = element('button', {textContent: 'Clear', type: 'button'});
    this.clear.addEventListener('click', () => this.wipe());
    this.pen = this.paper.getContext('2d', {willReadFrequently: true});
    this.paper.addEventListener('pointerdown', event => this.begin(event));
    this.paper.addEventListener('pointermove', event => this.move(event));
    for (const end of ['pointerup', 'pointercancel']) this.paper.addEventListener(end, () => { this.last = null; });
    this.wipe(false);
  }

  wipe(tell = true) {
    this.pen.fillStyle = '#000';
    this.pen.fillRect(0, 0, SIDE, SIDE);
    if (tell) this.drawn(null);
  }

  /** Show an image, 784 grey levels, as if it had been drawn. */
  show(pixels) {
    const image = new ImageData(28, 28), small = new OffscreenCanvas(28, 28);
    pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
    small.getContext('2d').putImageData(image, 0, 0);
    this.pen.imageSmoothingEnabled = false;
    this.pen.drawImage(small, 0, 0, SIDE, SIDE);
    this.isImage = true;
  }

  begin(event) {
    event.preventDefault();
    if (this.isImage) this.wipe(false);  // a new drawing, not a change of the image
    this.isImage = false;
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
      const {data} = this.pen.getImageData(0, 0, SIDE, SIDE);
      this.drawn(prepare(Uint8Array.from({length: SIDE * SIDE}, (_, i) => data[4 * i]), SIDE));
    });
  }
}
