// As much of a browser as the page's modules need when they run in Node.

import {readFileSync} from 'node:fs';
import vm from 'node:vm';

export const STATIC = new URL('../../mnist_tb/board/static/', import.meta.url);

/** An element that keeps what it is given, and draws nothing. */
class Element extends EventTarget {
  children = [];
  attributes = new Map();
  style = {};

  constructor(tag) {
    super();
    this.tag = tag;
  }

  append(...children) {
    this.children.push(...children);
  }

  setAttribute(name, value) {
    this.attributes.set(name, String(value));
  }
}

class Canvas extends Element {
  pen = new Pen();

  getContext() {
    return this.pen;
  }

  getBoundingClientRect() {
    return {left: 10, top: 20, width: 112, height: 112};
  }

  setPointerCapture(id) {
    this.captured = id;
  }
}

/** Notes what it is called for. ink: a grey level for each place, what getImageData finds. */
class Pen {
  calls = [];
  ink = () => 0;

  getImageData(left, top, width, height) {
    const image = new ImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      image.data.fill(this.ink(i % width, Math.floor(i / width)), 4 * i, 4 * i + 3);
    }
    return image;
  }

  putImageData(image) {
    this.shown = image;
  }
}
for (const name of ['beginPath', 'moveTo', 'lineTo', 'stroke', 'fillRect', 'drawImage']) {
  Pen.prototype[name] = function (...given) {
    this.calls.push([name, ...given]);
  };
}

class ImageData {
  constructor(width, height) {
    Object.assign(this, {width, height, data: new Uint8ClampedArray(4 * width * height)});
  }
}

/** Makes the names global that modules take from a browser. */
export function open() {
  const waiting = [];
  Object.assign(globalThis, {
    ImageData,
    OffscreenCanvas: class extends Canvas {},
    IntersectionObserver: class {},
    document: {createElement: tag => tag === 'canvas' ? new Canvas(tag) : new Element(tag)},
    requestAnimationFrame: callback => waiting.push(callback),
  });
  return {frame: () => { for (const callback of waiting.splice(0)) callback(); }};
}

/** Runs a script, one that is no module, in a window with these names. */
export function run(name, window) {
  const file = new URL(name, STATIC);
  window.window = window;
  vm.runInNewContext(readFileSync(file, 'utf8'), window, {filename: file.href});
}
