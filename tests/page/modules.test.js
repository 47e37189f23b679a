// Each module of the page can be loaded, and what it imports of the others is there: so all are counted as well.

import assert from 'node:assert/strict';
import {readdirSync} from 'node:fs';
import {test} from 'node:test';

import {STATIC, open} from './browser.js';

open();
const SCRIPTS = ['reload.js', 'settings.js'];  // which are no modules
const modules = readdirSync(STATIC).filter(name => name.endsWith('.js') && !SCRIPTS.includes(name));

for (const name of modules) {
  test(`${name} can be loaded`, async () => {
    assert.ok(Object.keys(await import(new URL(name, STATIC))).length);
  });
}
