// @ts-check
// A place to draw a digit with the mouse, a finger or a pen.

import {element} from './dom.js';
import {prepare} from './network.js';

const SIDE = 224, PEN = 18;

/** @typedef {[x: number, y: number]} Place */

export class Pad {
  /**
   * @param {string} name of the run
   * @param {(pixels: Uint8Array | null) => void} drawn
   *   receives what was drawn as the network sees it, 784 grey levels; null for nothing
   * @param {() => void} ended is called when the pen is lifted
   */
  constructor(name, drawn, ended = () => {}) {
    this.drawn = drawn;
    this.ended = ended;
    this.paper = element('canvas', {width: SIDE, height: SIDE, className: 'paper', role: 'img',
      ariaLabel: `draw for ${name}`});
    this.clear = element('button', {textContent: 'Clear', type: 'button'});
    this.clear.addEventListener('click', () => { this.wipe(); this.ended(); });
    this.pen = /** @type {CanvasRenderingContext2D} */ (this.paper.getContext('2d', {willReadFrequently: true}));
    this.last = /** @type {Place | null} */ (null);
    this.due = /** @type {number | undefined} */ (undefined);
    this.paper.addEventListener('pointerdown', event => this.begin(event));
    this.paper.addEventListener('pointermove', event => this.move(event));
    for (const end of ['pointerup', 'pointercancel']) this.paper.addEventListener(end, () => {
      if (this.last) requestAnimationFrame(() => this.ended());
      this.last = null;
    });
    this.wipe(false);
  }

  wipe(tell = true) {
    this.pen.fillStyle = '#000';
    this.pen.fillRect(0, 0, SIDE, SIDE);
    if (tell) this.drawn(null);
  }

  /**
   * Show an image, 784 grey levels, as if it had been drawn.
   * @param {Uint8Array} pixels
   */
  show(pixels) {
    const image = new ImageData(28, 28), small = new OffscreenCanvas(28, 28);
    pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
    /** @type {OffscreenCanvasRenderingContext2D} */ (small.getContext('2d')).putImageData(image, 0, 0);
    this.pen.imageSmoothingEnabled = false;
    this.pen.drawImage(small, 0, 0, SIDE, SIDE);
    this.isImage = true;
  }

  /** @param {PointerEvent} event */
  begin(event) {
    event.preventDefault();
    if (this.isImage) this.wipe(false);  // a new drawing, not a change of the image
    this.isImage = false;
    this.paper.setPointerCapture(event.pointerId);
    this.last = this.place(event);
    this.stroke(this.last, this.last);
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!this.last) return;
    const next = this.place(event);
    this.stroke(this.last, next);
    this.last = next;
  }

  /**
   * @param {PointerEvent} event
   * @returns {Place}
   */
  place(event) {
    const box = this.paper.getBoundingClientRect();
    return [(event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height];
  }

  /**
   * @param {Place} from
   * @param {Place} to
   */
  stroke(from, to) {
    Object.assign(this.pen, {lineWidth: PEN, lineCap: 'round', lineJoin: 'round', strokeStyle: '#fff'});
    this.pen.beginPath();
    this.pen.moveTo(...from);
    this.pen.lineTo(...to);
    this.pen.stroke();
    this.due ??= requestAnimationFrame(() => {
      this.due = undefined;
      const {data} = this.pen.getImageData(0, 0, SIDE, SIDE);
      this.drawn(prepare(Uint8Array.from({length: SIDE * SIDE}, (_, i) => data[4 * i]), SIDE));
    });
  }
}
