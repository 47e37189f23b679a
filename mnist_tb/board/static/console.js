// @ts-check
// What a run printed; fetched while it is unfolded, and followed to its end.

/** @import {Ask} from './types.js' */

import {element, setText} from './dom.js';

export class Console {
  /**
   * @param {string} name of the run
   * @param {Ask} ask
   */
  constructor(name, ask) {
    this.name = name;
    this.ask = ask;
    this.text = element('pre', {tabIndex: 0, role: 'region', ariaLabel: `what ${name} printed`});
    this.root = element('details', {className: 'console'},
      element('summary', {textContent: 'What it printed'}), this.text);
    this.root.addEventListener('toggle', () => this.update().catch(error => setText(this.text, error.message)));
  }

  async update() {
    if (!this.root.open) return;
    const answer = await this.ask(`console?run=${encodeURIComponent(this.name)}`);
    const text = answer.status === 200 ? await answer.text() : 'Nothing is kept, or its folder is on another machine.';
    const {text: pre} = this, atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 20;
    setText(pre, text);
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  }
}
