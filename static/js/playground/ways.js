// How tokens are chosen and what the answer must be: a method, its own parameters alone, a constraint, a draft.
import { $, el } from './dom.js';

const ALL = 'All settings below hold together, as OpenAI names them.';
const KINDS = {
  '': ['Anything', ''],
  json: ['JSON', 'Any JSON value. Raise “Most new tokens” where it is cut.'],
  json_schema: ['JSON of a schema', 'A JSON Schema. The model is not told of it: say in the message what is wanted.'],
  regex: ['A pattern', 'A regular expression that the whole answer matches.'],
  grammar: ['A grammar', 'In Lark’s syntax, with a rule called start.'],
};
const EXAMPLES = {
  json_schema: '{\n  "type": "object",\n  "properties": {"mood": {"type": "string"}},\n  "required": ["mood"],\n  "additionalProperties": false\n}',
  regex: '(Yes|No), because [a-z ,]{10,80}\\.',
  grammar: 'start: "Yes" | "No"',
};
const NAMES = {
  greedy: 'Greedy', 'top-k': 'Top-k', 'top-p': 'Top-p', 'min-p': 'Min-p', typical: 'Typical', ads: 'Diverse (ADS)', 'guided-generation': 'Guided',
  'constrained-beam-search': 'Beam search', 'speculative-decoding': 'Speculative',
};

export class Ways {
  constructor(settings, data, changed) {
    Object.assign(this, { settings, methods: new Map(data.methods.map(m => [m.name, m])), neutral: data.neutral, data, changed });
    this.settings.method ??= '';
    this.settings.constraint ??= null;
    this.settings.draft ??= null;
    $('s-method').replaceChildren(el('option', { value: '' }, 'All settings'), ...data.methods.map(m => el('option', { value: m.name }, NAMES[m.name] ?? m.name)));
    $('s-constraint').replaceChildren(...Object.entries(KINDS).map(([kind, [name]]) => el('option', { value: kind }, name)));
    $('s-method').addEventListener('change', () => this.#choose($('s-method').value));
    $('s-constraint').addEventListener('change', () => this.#kind($('s-constraint').value));
    $('s-constraint-text').addEventListener('change', () => this.#text($('s-constraint-text').value));
    $('s-draft-tokens').addEventListener('change', () => this.#draft('tokens', Number($('s-draft-tokens').value)));
    $('s-draft-model').addEventListener('change', () => this.#draft('model', $('s-draft-model').value));
  }

  get method() { return this.methods.get(this.settings.method); }

  draw() {
    const { method, settings: { constraint, draft } } = this;
    $('s-method').value = method?.name ?? '';
    $('s-about').textContent = method?.about ?? ALL;
    for (const part of $('sampling').querySelectorAll('[data-param]')) part.hidden = !this.#shows(part.dataset.param);
    for (const part of $('sampling').querySelectorAll('[data-needs]')) part.hidden = !draft;
    $('s-constraint').value = constraint?.kind ?? '';
    $('s-constraint-text').hidden = !constraint || constraint.kind === 'json';
    $('s-constraint-text').value = constraint?.text ?? '';
    $('s-constraint-hint').textContent = KINDS[constraint?.kind ?? ''][1];
    if (draft) $('s-draft-tokens').value = draft.tokens;
    const others = this.data.model.companions ?? [];
    $('s-draft-model').replaceChildren(el('option', { value: '' }, 'Look-up in the text so far'), ...others.map(id => el('option', { value: id, selected: id === draft?.model }, id)));
  }

  /** What the composer says of it; `plain` where nothing was chosen. */
  inShort(plain) {
    const { constraint } = this.settings;
    return [this.method ? NAMES[this.method.name] : plain, constraint && KINDS[constraint.kind][0]].filter(Boolean).join(' · ');
  }

  /** Without a method all that thins out tokens; ADS and beams are methods of their own. */
  #shows(param) {
    if (this.method) return this.method.takes.includes(param) && !(this.method.name === 'ads' && ['min_p', 'typical_p'].includes(param));
    const { sampling } = this.settings;
    return !['ads_subset_size', 'ads_beta', 'beam_width', 'length_penalty'].includes(param) || sampling[param] !== this.neutral[param];
  }

  #choose(name) {
    this.settings.method = name;
    const { method, settings } = this;
    const { sampling } = settings;
    const kept = method ? { ...method.defaults } : this.data.defaults;
    for (const param of Object.keys(this.neutral)) {
      const penalty = param.endsWith('_penalty') && param !== 'length_penalty';
      if (!penalty) sampling[param] = structuredClone(kept[param] ?? this.neutral[param]);
    }
    settings.draft = method?.needs === 'draft' ? { model: '', tokens: 4, ngram: 3 } : null;
    if (method?.needs === 'constraint' && !settings.constraint) settings.constraint = { kind: 'json', text: '' };
    this.changed();
  }

  #kind(kind) {
    this.settings.constraint = kind ? { kind, text: EXAMPLES[kind] ?? '' } : null;
    this.#complain('');
    if (!kind && this.method?.needs === 'constraint') this.settings.method = '';
    this.changed();
  }

  #text(text) {
    const { constraint } = this.settings;
    constraint.text = text;
    this.#complain(constraint.kind === 'json_schema' ? broken(text) : '');
    this.changed();
  }

  #draft(name, value) {
    if (name === 'tokens' && !(Number.isInteger(value) && value >= 1 && value <= 16)) return this.draw();
    this.settings.draft[name] = value;
    this.changed();
  }

  refused(code, message) {
    if (code !== 'constraint') return false;
    this.#complain(message);
    return true;
  }

  reset() {
    Object.assign(this.settings, { method: '', constraint: null, draft: null });
    this.#complain('');
  }

  #complain(sentence) {
    const box = $('s-constraint-text');
    box.parentElement.querySelector('.field-error')?.remove();
    box.setAttribute('aria-invalid', sentence ? 'true' : 'false');
    if (sentence) box.after(el('p', { class: 'field-error small', role: 'alert', id: 's-constraint-error' }, sentence));
  }
}

function broken(text) {
  try {
    const schema = JSON.parse(text);
    return typeof schema === 'object' && schema !== null && !Array.isArray(schema) ? '' : 'A schema is an object, in braces.';
  } catch (error) {
    return `This is no JSON: ${error.message}.`;
  }
}
