// @ts-check
// Elements of a page, made in one call. Texts are set as text, never as markup.

/**
 * The properties of an element; the DOM takes a number where it wants a text.
 * @template Made
 * @typedef {{role?: string} & {[Key in keyof Made]?: Made[Key] | (string extends Made[Key] ? number : never)}} Given
 */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Given<HTMLElementTagNameMap[Tag]>} properties
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (properties.role) made.setAttribute('role', properties.role);
  made.append(...children);
  return made;
}

/**
 * @param {Node} where
 * @param {string} text
 */
export function setText(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

/**
 * A choice between [value, text].
 * @param {string} label
 * @param {string[][]} options
 * @param {string} value
 */
export function select(label, options, value) {
  const made = element('select', {ariaLabel: label},
    ...options.map(([value, textContent]) => element('option', {value, textContent})));
  made.value = value;
  return made;
}
