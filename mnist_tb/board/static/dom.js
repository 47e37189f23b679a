// Elements of a page, made in one call. Texts are set as text, never as markup.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (properties.role) made.setAttribute('role', properties.role);
  made.append(...children);
  return made;
}

export function setText(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

/** A choice between [value, text]. */
export function select(label, options, value) {
  const made = element('select', {ariaLabel: label},
    ...options.map(([value, textContent]) => element('option', {value, textContent})));
  made.value = value;
  return made;
}
