// The Live tab: asks twice a second for the runs that have changed, and draws those that can be seen.
// Whatever comes from a run is put into the page as text, never as markup.

import {Card, WORDS} from './card.js';
import {SLATE, TENSORBOARDS} from './charts.js';
import {element, select, setText} from './dom.js';
import {Overlay} from './overlay.js';

const POLL_MS = 500, TICK_MS = 1000, PATIENCE_MS = 20_000;
const MOST_TAGS = 12;
const WAIT_MS = 10_000;
const MOST_LAID = 200;  // as many runs as plugin.py averages at once
const OPEN_AT_FIRST = 3;  // at most so many running runs are unfolded without being asked for
const EXPIRED = 'The token of this page is no longer valid: the page was started again. Open the new address, with its'
  + ' token, that mnist-tb board has printed.';
const cards = new Map();  // run name → its card
let number = 0, server = null, top, list, trouble, overlay, order = [], laidAgain = 0;

export function render() {
  document.title = 'Live';
  document.documentElement.lang = 'en';
  for (const file of ['live.css', 'charts.css', 'vendor/uPlot.min.css']) {
    document.head.append(element('link', {rel: 'stylesheet', href: `static/${file}`}));
  }
  const library = element('script', {src: 'static/vendor/uPlot.iife.min.js'});
  library.addEventListener('load', () => poll());
  document.head.append(library);
  top = element('div', {className: 'top'});
  trouble = element('p', {className: 'trouble', role: 'status'});
  list = element('div');
  overlay = new Overlay(ask);
  document.body.append(element('main', {}, top, trouble, overlay.root, list));
  remember();
  followTheme();
  setInterval(() => { for (const card of cards.values()) card.tick(); }, TICK_MS);
}

async function poll() {
  if (!document.hidden) {
    try {
      const answer = await (await ask(`runs?since=${number}`)).json();
      if (server !== null && server !== answer.server) {  // a new server counts anew
        number = 0;
        server = null;
      } else {
        show(answer);
        ({server, number} = answer);  // only now: what was not shown is asked for again
      }
      setText(trouble, '');
    } catch (error) {
      setText(trouble, error.isAnswer ? error.message : `This page has failed: ${error.message}; trying again.`);
    }
  }
  setTimeout(poll, POLL_MS);
}

/** What an address of the plugin answers, all of it. Raises an Error with a sentence for the page. */
async function ask(address) {
  let status;
  try {
    // After a laptop's sleep a connection can be gone without a word: then the next poll asks anew.
    const answer = await fetch(address, {cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS)});
    ({status} = answer);
    if (answer.ok) return new Response(status === 204 ? null : await answer.arrayBuffer(), answer);
  } catch {
    status = null;
  }
  throw Object.assign(new Error(status === null ? 'TensorBoard does not answer; trying again.'
    : status === 401 ? EXPIRED : `TensorBoard answers with error ${status}; trying again.`), {isAnswer: true});
}

function show({names, runs}) {
  for (const name of [...cards.keys()].filter(name => !names.includes(name))) {
    cards.get(name).curves?.destroy();
    cards.get(name).machine?.destroy();
    cards.get(name).root.remove();
    cards.delete(name);
  }
  const first = cards.size === 0;
  for (const run of runs) {
    if (!cards.has(run.run)) cards.set(run.run, new Card(run.run, ask, choice.ticked.has(run.run), tick));
    cards.get(run.run).update(run);
  }
  const known = order = names.filter(name => cards.has(name));
  arrange();
  const running = known.filter(name => cards.get(name).run.state === 'running');
  if (first && known.length) (running.length ? running.slice(0, OPEN_AT_FIRST) : known.slice(0, 1)).forEach(unfold);
  else runs.filter(run => run.state === 'running' && cards.get(run.run).isNew && running.length <= OPEN_AT_FIRST)
    .forEach(run => unfold(run.run));
  for (const run of runs) cards.get(run.run).isNew = false;
  for (const card of cards.values()) card.draw();
  head();
}

// ---- What is shown of many runs, and in which order

const SORTS = {
  newest: null, name: run => run.run, loss: run => run.loss, accuracy: run => less(run.accuracy),
  validation: run => less(run.val_accuracy), 'validation loss': run => run.val_loss,
  test: run => less(run.test_accuracy), 'images/s': run => less(run.images_per_second),
};
const less = value => value == null ? null : -value;  // the largest one first
const choice = {search: '', state: '', tag: '', sort: 'newest', ticked: new Set()};

/** Sort and filter the cards, moving none that is in its place: the focus stays. */
function arrange() {
  const by = SORTS[choice.sort], words = choice.search.toLowerCase().split(/\s+/).filter(Boolean);
  const key = name => by(cards.get(name).run) ?? undefined;
  const sorted = by ? [...order].sort((a, b) => compare(key(a), key(b))) : order;
  sorted.forEach((name, place) => {
    const {root, run} = cards.get(name);
    if (list.children[place] !== root) list.insertBefore(root, list.children[place] ?? null);
    const text = [name, run.dataset, WORDS[run.state], run.error, run.tags, run.note].join(' ').toLowerCase();
    root.hidden = (choice.state && run.state !== choice.state) || (choice.tag && !run.tags?.includes(choice.tag))
      || !words.every(word => text.includes(word));
  });
}

/** What is unknown comes last. */
function compare(a, b) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  return a < b ? -1 : a > b ? 1 : 0;
}

/** What is chosen stands in the page's address, so that a link shows the same. */
function remember() {
  const theirs = outside();
  const given = new URLSearchParams(theirs.hash.split('&').slice(1).join('&'));
  choice.search = given.get('search') ?? '';
  choice.state = Object.hasOwn(WORDS, given.get('state')) ? given.get('state') : '';
  choice.tag = given.get('tag') ?? '';
  choice.sort = Object.hasOwn(SORTS, given.get('sort')) ? given.get('sort') : 'newest';
  choice.ticked = new Set(given.getAll('run'));
}

function note() {
  const said = new URLSearchParams();
  for (const key of ['search', 'state', 'tag']) if (choice[key]) said.set(key, choice[key]);
  if (choice.sort !== 'newest') said.set('sort', choice.sort);
  for (const name of choice.ticked) said.append('run', name);
  const theirs = outside(), text = said.toString();
  try {
    const address = `${theirs.pathname}${theirs.search}#live${text ? `&${text}` : ''}`;
    window.parent.history.replaceState(window.parent.history.state, '', address);
  } catch {
    // within a page of another origin there is no address to stand in
  }
}

function outside() {
  try {
    return window.parent.location;
  } catch {
    return window.location;
  }
}

function change(what) {
  Object.assign(choice, what);
  note();
  arrange();
  for (const card of cards.values()) card.draw();
  head();
}

/** What a card says when its box is ticked or not. */
function tick(name, ticked) {
  choice.ticked[ticked ? 'add' : 'delete'](name);
  note();
  head();
}

function unfold(name) {
  cards.get(name).unfold(true);
}

let search, sort, states, counted, fold, link;

function head() {
  if (!top.children.length) {
    search = element('input', {type: 'search', placeholder: 'search', ariaLabel: 'search', value: choice.search});
    search.addEventListener('input', () => change({search: search.value}));
    sort = select('sort by', Object.keys(SORTS).map(name => [name, name]), choice.sort);
    sort.addEventListener('input', () => change({sort: sort.value}));
    states = element('span', {className: 'states'});
    counted = element('span', {className: 'count', role: 'status'});
    fold = element('button', {type: 'button', textContent: 'Collapse all'});
    fold.addEventListener('click', () => { for (const card of cards.values()) if (card.isOpen) card.unfold(false); });
    link = element('a', {className: 'button', target: '_top'});
    top.append(element('h1', {textContent: 'Runs'}), states, counted, search,
      element('label', {}, 'sort by ', sort), fold, link);
  }
  const names = order, counts = {};
  for (const name of names) counts[cards.get(name).run.state] = (counts[cards.get(name).run.state] ?? 0) + 1;
  const known = Object.keys(WORDS).filter(state => counts[state]).map(state =>
    ({text: `${counts[state]} ${WORDS[state]}`, key: 'state', value: state}));
  const tags = [...new Set(names.flatMap(name => cards.get(name).run.tags ?? []))].sort().slice(0, MOST_TAGS);
  chips([...known, ...tags.map(tag => ({text: `# ${tag}`, key: 'tag', value: tag}))]);
  const shown = names.filter(name => !cards.get(name).root.hidden).length;
  const chosen = names.filter(name => cards.get(name).box.checked);
  setText(counted, [shown < names.length && `${shown} of ${names.length} shown`, chosen.length > MOST_LAID
    && `of ${chosen.length} ticked runs, the first ${MOST_LAID} are laid over one another`].filter(Boolean).join('; '));
  setText(link, chosen.length ? `Compare ${chosen.length} in Time Series` : 'All in Time Series');
  const address = timeSeries(chosen);
  if (link.getAttribute('href') !== address) link.href = address;
  const laid = chosen.length > 1 ? chosen.slice(0, MOST_LAID) : [];
  if (performance.now() > laidAgain) overlay.update(laid, laid.map(name => cards.get(name).run.step), colours())
    .catch(error => {
      laidAgain = performance.now() + WAIT_MS;
      setText(overlay.about, `The ticked runs cannot be shown: ${error.message}`);
    });
  top.classList.toggle('none', !names.length);
  if (!names.length && !list.children.length) {
    list.append(element('div', {className: 'empty'}, 'No runs yet. ', element('code', {textContent: 'make train'}),
      ' starts one; it appears here by itself.'));
  } else if (names.length) {
    list.querySelector('.empty')?.remove();
  }
}

/** Buttons that show only the runs of a state or with a tag. wanted: [{text, key, value}], key and value: of the choice. */
function chips(wanted) {
  const said = JSON.stringify([wanted, choice.state, choice.tag]);
  if (states.dataset.said === said) return;
  states.dataset.said = said;
  const made = wanted.map(({text, key, value}) => {
    const chip = element('button', {type: 'button', textContent: text, ariaPressed: String(choice[key] === value)});
    chip.addEventListener('click', () => change({[key]: choice[key] === value ? '' : value}));
    return chip;
  });
  const at = [...states.children].indexOf(document.activeElement);
  states.replaceChildren(...made);
  if (at >= 0) made[at]?.focus();
}

/** Run → the colour that Time Series gives it: it goes through its colours in the order in which the runs began. */
function colours() {
  const begun = [...order].sort((a, b) => compare(cards.get(a).run.started, cards.get(b).run.started) || compare(a, b));
  const palette = [isDark() ? SLATE : TENSORBOARDS[0], ...TENSORBOARDS.slice(1)];
  return new Map(begun.map((name, place) => [name, palette[place % palette.length]]));
}

/** TensorBoard's own page with only these runs. */
function timeSeries(names) {
  const root = new URL('../../../', document.baseURI).pathname;
  if (!names.length) return `${root}#timeseries`;
  const escaped = names.map(name => name.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&'));
  return `${root}?${new URLSearchParams({runFilter: `^(${escaped.join('|')})$`})}#timeseries`;
}

const isDark = () => document.documentElement.classList.contains('dark');

/** Dark where TensorBoard is dark. */
function followTheme() {
  const theirs = (() => {
    try {
      return window.parent.document.body;
    } catch {
      return document.body;
    }
  })();
  const apply = () => {
    document.documentElement.classList.toggle('dark', theirs.classList.contains('dark-mode'));
    if (top.children.length) head();  // the colours of the ticked runs are others
  };
  new MutationObserver(apply).observe(theirs, {attributes: true, attributeFilter: ['class']});
  apply();
}
