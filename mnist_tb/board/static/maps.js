// @ts-check
// Pictures of numbers: square maps side by side, and the colours of their values.

import {element} from './dom.js';

/** @typedef {Float32Array | Float64Array | Uint8Array | number[]} Numbers */
/** @typedef {(value: number) => number[]} Colours */

/**
 * @param {Float32Array} values
 * @param {number} size
 */
export const parts = (values, size) =>
  Array.from({length: values.length / size}, (_, i) => values.subarray(i * size, (i + 1) * size));

/** @type {Colours} */
export const grey = share => {
  const level = Math.round(255 * Math.min(1, Math.max(0, share)));
  return [level, level, level];
};

/**
 * A value's colour: blue above zero, red below, as strong as it is beside the largest.
 * @param {Numbers} values
 * @returns {Colours}
 */
export function signed(values) {
  let most = 1e-9;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return value => {
    const share = Math.min(1, Math.abs(value) / most), pale = Math.round(245 * (1 - share));
    return value > 0 ? [pale, Math.round(245 - 130 * share), 245] : [245, pale, pale];
  };
}

/**
 * Draws square maps side by side, a pixel a value and one between them; zoom: how large a pixel is shown.
 * @param {HTMLCanvasElement} picture
 * @param {number} side
 * @param {Numbers[]} maps
 * @param {number} columns
 * @param {Colours} colours
 * @param {number} [zoom]
 */
export function paint(picture, side, maps, columns, colours, zoom) {
  const wide = Math.min(columns, maps.length), rows = Math.ceil(maps.length / wide);
  const step = maps.length > 1 ? side + 1 : side;
  const [width, height] = [wide * step - (step - side), rows * step - (step - side)];
  if (picture.width !== width || picture.height !== height) Object.assign(picture, {width, height});
  if (zoom) picture.style.width = `${width * zoom}px`;
  const image = new ImageData(width, height);
  maps.forEach((map, m) => {
    const left = m % wide * step, top = Math.floor(m / wide) * step;
    for (let i = 0; i < side * side; i++) {
      image.data.set([...colours(map[i]), 255], 4 * ((top + Math.floor(i / side)) * width + left + i % side));
    }
  });
  /** @type {CanvasRenderingContext2D} */ (picture.getContext('2d')).putImageData(image, 0, 0);
}

/**
 * A picture to paint on. label: what it is called; empty where the text beside it says all.
 * @param {string} label
 * @param {string} className
 */
export function canvas(label, className) {
  return element('canvas', label ? {className, role: 'img', ariaLabel: label} : {className, ariaHidden: 'true'});
}
