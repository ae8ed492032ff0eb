// The playground: one set of settings, one board of lanes, one run that is shown. Modules around it know only their part.
import { register } from '../shortcuts.js';
import { toast } from '../base.js';
import { Banner } from './banner.js';
import { BehaviorPicker } from './behaviors.js';
import { Board } from './board.js';
import { Composer } from './composer.js';
import { Connection } from './connection.js';
import { $, count, el, list, wake } from './dom.js';
import { FeaturePicker, Watched, nameOfRef } from './features.js';
import { Library, loadFeatures, loadLibrary, loadPresets } from './library.js';
import { ModelChoice } from './model.js';
import { PresetPicker, VectorPicker } from './picker.js';
import { Previews } from './previews.js';
import { SavePreset } from './presets.js';
import { Sampling } from './sampling.js';
import { strengthText } from './scale.js';
import { legend } from '../features/tokens.js';
import { Title } from './title.js';
import { drawTurn } from './turns.js';

const COLOURS = ['off', 'logprob', 'feature'];

class Playground {
  constructor(data, library) {
    Object.assign(this, { data, library, settings: data.settings, run_: data.run, turns: data.turns, colour: 'off' });
    this.loading = this.run_ !== null; // its texts are on their way
    for (const chip of data.settings.lanes.flatMap(lane => lane.interventions)) if (!chip.feature) chip.layer ??= library.usedBy(chip)?.recommended_layer ?? 0;
    data.settings.watched ??= [];
    this.connection = new Connection();
    this.banner = new Banner(this.connection);
    this.banner.model(data.model);
    this.title = new Title();
    this.picker = new VectorPicker(library.all);
    this.features = new FeaturePicker(library);
    this.presets = new PresetPicker(library);
    this.behaviors = new BehaviorPicker(library);
    this.keeper = new SavePreset(library);
    this.choice = new ModelChoice(data, library, model => this.#modelChosen(model));
    this.previews = new Previews(this.connection, (key, preview) => this.#showPreview(key, preview));
    this.watched = new Watched(this);
    this.board = new Board(this.settings, this);
    this.#learn();
    this.#drawWatches();
    this.sampling = new Sampling(this.settings, data, () => this.#drawComposer());
    this.composer = new Composer(this);
    this.composer.text = data.draft;
    this.#listen();
    this.#drawRun();
    if (this.run_?.state === 'running') this.#begin();
    if (this.run_) this.#follow(false);
    else this.composer.focus();
  }

  #listen() {
    for (const radio of document.querySelectorAll('input[name=mode]')) {
      radio.checked = radio.value === this.settings.mode;
      radio.addEventListener('change', () => { this.settings.mode = radio.value; this.#drawComposer(); });
    }
    for (const radio of document.querySelectorAll('input[name=colour]')) radio.addEventListener('change', () => this.#setColour(radio.value));
    $('colour-watch').addEventListener('change', () => this.colourBy($('colour-watch').value));
    $('diff').addEventListener('click', () => this.#compare());
    $('add-lane').addEventListener('click', () => this.addLane());
    $('regenerate').addEventListener('click', () => this.regenerate());
    addEventListener('popstate', () => location.reload());
  }

  // ---- what lanes and answers ask of the page ----

  nameOf = applied => this.library.nameOfApplied(applied);
  usedBy = intervention => this.library.usedBy(intervention);
  behaviorOf = name => this.library.behaviors.find(behavior => behavior.name === name || behavior.full_name === name);
  isFirst = key => this.settings.lanes[0]?.key === key;
  drawn = lane => this.board?.drawn(lane);
  changed = lane => (typeof lane === 'string' ? this.#laneChanged(lane) : this.board.changed(lane));
  counted = () => this.#drawContext();
  drafted = () => this.#drawComposer();

  get canRerun() { return this.run_ !== null && !this.loading; }

  #laneChanged(key) {
    this.board.changed(this.board.lane(key));
    this.board.answers.get(key).hidePreview();
  }

  /** An intervention was changed; `live` while its strength is dragged: then the lane shows a preview. */
  moved(key, live) {
    if (!this.board.busy) this.#preview(key, live);
  }

  /** On what a condition may rest: vectors of this model that are in the library. */
  conditionVectors() { return (this.library?.all ?? []).filter(vector => vector.usable); }

  addVector(key) {
    const lane = this.board.lane(key);
    if (lane.interventions.length >= this.data.limits.interventions) return toast('This lane is full', `A lane has at most ${this.data.limits.interventions} interventions.`);
    this.picker.ask(vector => {
      lane.interventions.push(Library.intervention(vector));
      const head = this.board.heads.get(key);
      head.open = lane.interventions.length - 1;
      head.draw();
      this.board.changed(lane);
      this.#preview(key, false);
    });
  }

  addBehavior(key) {
    const { behaviors } = this.board.lane(key);
    this.behaviors.ask(behavior => {
      if (!behaviors.includes(behavior.name)) behaviors.push(behavior.name);
      this.board.heads.get(key).draw();
      this.changed(key);
      this.#opener(key).focus();
      this.#say(`Lane ${key} watches for ${behavior.name}.`);
    });
  }

  addFeature(key) {
    const lane = this.board.lane(key);
    if (lane.interventions.length >= this.data.limits.interventions) return toast('This lane is full', `A lane has at most ${this.data.limits.interventions} interventions.`);
    return this.features.ask(`Add a feature to lane ${key}`, ref => {
      lane.interventions.push(this.library.featureChip(ref));
      const head = this.board.heads.get(key);
      head.open = lane.interventions.length - 1;
      head.draw();
      this.board.changed(lane);
      this.#learn();
      this.#preview(key, false);
    });
  }

  /** Find out what a unit of strength is worth for the features on the board, then say it where they are open. */
  async #learn() {
    const refs = [...this.settings.lanes.flatMap(lane => lane.interventions).map(use => use.feature).filter(Boolean), ...this.settings.watched];
    await Promise.all(refs.map(ref => this.library.learn(ref)));
    for (const head of this.board.heads.values()) head.panel?.learnt?.();
    this.rescale();
  }

  loadPreset(key) {
    this.presets.ask((preset, withSampling) => {
      const { uses, system_prompt, sampling, behaviors = [], auto_correct = true, force_steering = [] } = preset.content;
      Object.assign(this.board.lane(key), { name: preset.name, system_prompt, interventions: structuredClone(uses), behaviors: [...behaviors], auto_correct, force_steering: [...force_steering] });
      if (withSampling) {
        Object.assign(this.settings.sampling, structuredClone(sampling));
        if (Object.keys(sampling).length) Object.assign(this.settings, { method: '', draft: null }); // what a preset sets may be of no one method
      }
      this.sampling.draw();
      this.#lanesChanged();
      this.#opener(key).focus();
      this.#say(`${preset.name}, version ${preset.version}, is in lane ${key}.`);
      this.#preview(key, false);
    });
  }

  savePreset(key) {
    const lane = this.board.lane(key);
    if (!lane.system_prompt && !lane.behaviors.length && !lane.interventions.some(i => i.on)) return toast(`Lane ${key} is the model as it is`, 'A preset needs an intervention or a system prompt. Add one first.');
    this.keeper.ask(lane, this.settings, async saved => {
      this.#opener(key).focus();
      const known = await loadPresets().catch(() => null); // before the word that it is saved, after which it is looked for
      if (known) {
        this.library.presets = known.presets;
        this.library.useOn(this.data.settings.model || this.data.model.id);
      }
      toast(`Saved as ${saved.title}`, `Programs call it as ${saved.model_name}.`, { href: saved.url, text: 'See how' });
    });
  }

  #opener(key) { return this.board.heads.get(key).element.querySelector('.lane-menu summary'); }

  removeChips(key) {
    const lane = this.board.lane(key);
    lane.interventions = lane.interventions.filter(i => this.usedBy(i)?.usable);
    this.board.heads.get(key).draw();
  }

  async #featuresOf(model) {
    const found = await loadFeatures(model.id).catch(() => null);
    if (!found) return;
    this.library.takeFeatures(found);
    this.board.draw();
    this.watched.draw();
    this.#learn();
  }

  /** Vectors of other models stay in their lanes, marked, until they are removed. */
  #modelChosen(model) {
    this.data.model = model;
    this.banner.model(model);
    if (!model.has_chat_template) {
      this.settings.mode = 'completion';
      document.querySelector('input[name=mode][value=completion]').checked = true;
    }
    this.board.draw();
    this.#featuresOf(model);
    this.#drawComposer();
    this.#drawContext();
  }

  // ---- watches ----

  /** What a watch is called: a feature's label, or the name that a behavior has. */
  watchName(name) {
    const ref = /^(\d+-.+)\/(\d+)$/.exec(name);
    return ref ? this.library.featureOf({ source: ref[1], index: Number(ref[2]) }).name : name;
  }

  /** The largest activation that was ever seen of it, or null. */
  watchMost(name) {
    const ref = /^(\d+-.+)\/(\d+)$/.exec(name);
    return ref ? this.library.featureOf({ source: ref[1], index: Number(ref[2]) }).max : null;
  }

  /** The watch by which tokens are coloured, or ''. */
  get coloured() { return this.colour === 'feature' ? this.watchChosen ?? '' : ''; }

  /** What the darkest colour stands for: the largest that this page shows, so that lanes can be compared. */
  watchScale = () => this.scale || 1e-9;

  rescale() {
    const answers = this.board ? [...this.board.answers.values()] : [];
    this.scale = Math.max(0, ...answers.map(answer => answer.largest(this.coloured)), (this.watchMost(this.coloured) ?? 0) / 2);
    if (this.coloured) legend($('legend-watch'), this.scale);
    this.board?.recolour();
  }

  colourBy(name) {
    this.watchChosen = name;
    this.#drawWatches();
    this.#setColour('feature');
  }

  watchesChanged() {
    this.#drawWatches();
    this.#learn();
    for (const lane of this.settings.lanes) this.board.changed(lane);
  }

  /** The choice of what to colour by: what is watched, and what the shown answers have read. */
  #drawWatches() {
    const names = new Set(this.settings.watched.map(nameOfRef));
    for (const answer of this.board?.answers.values() ?? []) for (const name of answer.watches) names.add(name);
    if (!names.has(this.watchChosen)) this.watchChosen = [...names][0] ?? '';
    $('colour-watch').replaceChildren(...[...names].map(name => el('option', { value: name, selected: name === this.watchChosen }, this.watchName(name))));
    document.querySelector('input[name=colour][value=feature]').disabled = !names.size;
    if (!names.size && this.colour === 'feature') this.#setColour('off');
    $('colour-watch').hidden = this.colour !== 'feature';
  }

  // ---- lanes ----

  addLane(like = null) {
    const { lanes } = this.settings;
    const key = [...this.data.limits.keys].find(k => !lanes.some(lane => lane.key === k));
    if (!key) return toast('No more lanes', `A run has at most ${this.data.limits.lanes} lanes.`);
    const used = new Set(lanes.map(lane => lane.colour));
    const colour = ['1', '2', '3', '4', '5', '6'].find(c => !used.has(c));
    const fresh = { key, name: 'Steered', colour, system_prompt: '', interventions: [], copy_of: '' };
    lanes.push(like ? { ...structuredClone(like), key, name: `${like.name} copy`.slice(0, 60), colour, copy_of: like.key } : fresh);
    this.#lanesChanged();
    this.board.show(key);
    this.board.heads.get(key).element.scrollIntoView({ inline: 'nearest', block: 'nearest' });
    if (!like) this.board.heads.get(key).chips.querySelector('.chip-add').focus();
  }

  duplicate = key => this.addLane(this.board.lane(key));

  removeLane(key) {
    if (this.settings.lanes.length === 1) return toast('A run needs a lane', 'Add another one before you remove this.');
    if (this.board.answers.get(key).busy) this.stop(key);
    this.settings.lanes = this.settings.lanes.filter(lane => lane.key !== key);
    this.#lanesChanged();
  }

  rename(key, name) {
    this.board.lane(key).name = name;
    this.#lanesChanged();
  }

  #lanesChanged() {
    this.board.draw();
    this.#drawTurns();
    if (this.board.compared) this.board.compare(true);
    this.#drawComposer();
  }

  // ---- runs ----

  /** Run the draft; without one, the shown input again with the settings as they are now. */
  run() {
    if (this.board.busy || this.starting) return;
    if (this.composer.text.trim()) this.#start(this.#draftRequest());
    else if (this.run_) this.#start(this.#again());
    else this.composer.complain('There is nothing to run yet. Write a message first.');
  }

  regenerate() {
    if (!this.run_ || this.board.busy || this.starting) return;
    const request = this.#again();
    request.settings.sampling.seed = null;
    this.#start(request, { newSeed: true });
  }

  rerun(key) {
    if (!this.run_ || this.starting) return;
    if (this.board.busy) return toast('Other lanes still write', 'Stop them or wait, then run this lane again.');
    this.#start({ ...this.#again(), lanes: [key] });
  }

  stop(key = null) {
    if (this.run_) this.connection.stop(this.run_.id, key);
  }

  #draftRequest() {
    const input = this.composer.text;
    return { settings: structuredClone({ ...this.settings, input }), parent: this.#follows ? this.run_.id : null };
  }

  #again() {
    return { settings: structuredClone({ ...this.settings, input: this.run_.input }), version_of: this.run_.id };
  }

  /** Whether the next message continues the shown run. */
  get #follows() { return this.settings.mode === 'chat' && this.run_ !== null && this.run_.mode !== 'completion' && this.board.any; }

  async #start(request, { newSeed = false } = {}) {
    this.previews.cancel();
    this.composer.complain('');
    this.starting = true;
    const follows = Boolean(request.parent);
    try {
      const accepted = await this.connection.run(request);
      if (follows) this.#fold();
      else if (!request.version_of) this.turns.length = 0;
      this.run_ = { id: accepted.run, title: accepted.title, input: request.settings.input, mode: request.settings.mode, versions: accepted.versions };
      if (newSeed && this.settings.sampling.seed !== null) this.settings.sampling.seed = accepted.seed;
      if (!request.version_of && this.settings.mode === 'chat') this.composer.text = '';
      history.pushState(null, '', accepted.url);
      this.#drawRun();
      this.sampling.draw();
      this.#begin(request.lanes);
      this.#follow(true);
    } catch (refused) {
      if (!this.sampling.refused(refused.code, refused.message)) this.composer.complain(refused.message);
    } finally {
      this.starting = false;
    }
  }

  /** Put the shown turn among the earlier ones. */
  #fold() {
    const answers = {};
    for (const [key, answer] of this.board.answers) if (answer.started) answers[key] = { state: answer.ended?.state ?? '', text: answer.text };
    this.turns.push({ id: this.run_.id, input: this.run_.input, answers });
  }

  #begin(keys) {
    const lanes = keys ?? this.settings.lanes.map(lane => lane.key);
    if (!keys) this.board.clear();
    this.board.begin(lanes);
    this.#say(`Generating in ${lanes.length > 1 ? 'lanes' : 'lane'} ${list(lanes)}.`);
    this.#drawComposer();
    this.#drawContext();
    $('now').scrollIntoView({ block: 'nearest' });
  }

  #follow(fresh) {
    const { id } = this.run_;
    if (this.followed && this.followed !== id) this.connection.leave(this.followed);
    this.followed = id;
    this.connection.follow(id, {
      fresh,
      event: event => this.#take(event),
      reset: () => { this.board.clear(); this.board.begin(this.settings.lanes.map(lane => lane.key)); },
      failed: error => this.composer.complain(error.message),
    });
  }

  #take(event) {
    this.loading = false;
    if (event.t === 'run_finished') return this.#finished(event);
    const wasBusy = this.board.busy;
    this.board.take(event);
    if (event.t === 'started' && event.watches) this.#drawWatches();
    if (event.t === 'scored' && this.coloured) this.#scaleUp(event);
    if (this.board.busy !== wasBusy) this.#drawComposer();
  }

  /** Redraw all colours when something larger was read than the scale holds. */
  #scaleUp({ lane, values }) {
    const column = this.board.answers.get(lane)?.watches.indexOf(this.coloured) ?? -1;
    if (column >= 0 && values.some(scores => (scores[column] ?? 0) > (this.scale ?? 0))) this.rescale();
  }

  #finished(event) {
    const said = [...this.board.answers.values()].filter(answer => answer.started).map(answer => `lane ${answer.lane.key}, ${answer.tokens.length} tokens`);
    this.#say(`${event.state === 'cancelled' ? 'Stopped' : event.state === 'failed' ? 'Failed' : 'Finished'}: ${list(said)}.`);
    if (!event.saved) this.title.unsaved();
    if (this.board.compared) this.board.compare(true);
    for (const lane of this.settings.lanes) this.board.changed(lane);
    this.board.remark();
    this.#drawComposer();
    this.#drawContext();
  }

  // ---- previews ----

  #preview(key, live) {
    const draft = this.composer.text.trim() ? this.composer.text : '';
    const input = draft || this.run_?.input;
    const lane = this.board.lane(key);
    if (!input) {
      if (live) this.board.answers.get(key).hint('Write a message first: then moving the strength shows here at once what it does.');
      return;
    }
    if (!lane.interventions.length) return;
    const parent = draft && this.#follows ? this.run_.id : this.#parentOfShown(draft);
    this.previews.ask(lane, { ...this.settings, input }, parent);
  }

  #parentOfShown(draft) { return draft || this.settings.mode === 'completion' ? null : this.turns.at(-1)?.id ?? null; }

  #showPreview(key, { text, busy, error }) {
    const lane = this.board.lane(key);
    if (!lane || this.board.busy) return;
    const chips = lane.interventions.map(strengthText).join(', ');
    this.board.answers.get(key).showPreview(error ? 'not possible' : `${chips}, first words`, error ?? text, busy);
  }

  // ---- drawing ----

  #drawRun() {
    this.title.draw(this.run_);
    $('now-input').hidden = !this.run_;
    $('now-input').querySelector('p').textContent = this.run_?.input ?? '';
    this.#drawTurns();
    this.#drawComposer();
  }

  #drawTurns() {
    $('turns').replaceChildren(...this.turns.map((turn, i) => drawTurn(turn, i + 1, this.settings.lanes)));
    $('now').setAttribute('aria-label', `Turn ${this.turns.length + 1}`);
  }

  #drawComposer() {
    if (!this.composer) return;
    const { busy } = this.board;
    this.composer.draw({ busy, lanes: this.settings.lanes, mode: this.settings.mode, follows: this.#follows, again: Boolean(this.run_) && !this.composer.text.trim() });
    $('regenerate').hidden = !this.run_ || busy;
    $('add-lane').disabled = this.settings.lanes.length >= this.data.limits.lanes;
  }

  #drawContext() {
    const used = Math.max(0, ...[...this.board.answers.values()].map(a => (a.prompt_tokens ? a.prompt_tokens + a.tokens.length : 0)));
    const { context_length: most } = this.data.model;
    $('context').textContent = used ? `${count(used)}${most ? ` of ${count(most)}` : ''} tokens` : '';
  }

  #setColour(colour) {
    this.colour = colour;
    document.querySelector(`input[name=colour][value=${colour}]`).checked = true;
    $('legend').hidden = colour !== 'logprob';
    $('legend-watch').hidden = $('colour-watch').hidden = colour !== 'feature';
    this.rescale();
  }

  nextColour = () => {
    const known = this.watchChosen ? COLOURS : COLOURS.slice(0, 2);
    this.#setColour(known[(known.indexOf(this.colour) + 1) % known.length]);
  };

  #compare() {
    const on = !this.board.compared;
    $('diff').setAttribute('aria-pressed', on);
    this.board.compare(on);
  }

  #say(text) { $('status').textContent = text; }

  // ---- shortcuts ----

  /** The strength that the keys move: of the lane that has the focus, else of the first that is steered. */
  get #strength() {
    const focused = document.activeElement?.closest('[data-lane]')?.dataset.lane;
    const heads = [this.board.heads.get(focused), ...this.board.heads.values()];
    return heads.find(head => head?.panel)?.panel.strength;
  }

  get #focused() { return document.activeElement?.closest('[data-lane]')?.dataset.lane ?? this.settings.lanes.at(-1).key; }

  registerShortcuts() {
    const steered = () => Boolean(this.#strength);
    register('Runs', [
      { keys: 'Mod+Enter', label: 'Run all lanes', run: () => this.run() },
      { keys: 'Escape', label: 'Stop', run: () => this.stop(), when: () => this.board.busy },
      { keys: 'Mod+Shift+Enter', label: 'Regenerate with a new seed', run: () => this.regenerate() },
      { keys: ['Alt+ArrowLeft', 'Alt+ArrowRight'], label: 'Previous or next version', run: i => this.title.go(i ? 1 : -1), when: () => this.title.hasVersions },
    ]);
    register('Strength of the focused intervention', [
      { keys: ['[', ']'], label: 'One step down or up', run: i => this.#strength.nudge(i ? 1 : -1), when: steered },
      { keys: ['Shift+[', 'Shift+]'], label: 'Ten steps', run: i => this.#strength.nudge(i ? 10 : -10), when: steered },
      { keys: '0', label: 'To zero, the baseline', run: () => this.#strength.set(0), when: steered },
    ]);
    register('Reading', [
      { keys: 'd', label: 'Difference view', run: () => this.#compare() },
      { keys: 't', label: 'Token colour: next kind', run: () => this.nextColour() },
      { keys: 'c', label: 'Add a lane', run: () => this.addLane() },
    ]);
    register('Keeping', [
      { keys: 's', label: 'Save the focused lane, or the last, as a preset', run: () => this.savePreset(this.#focused) },
      { keys: 'y', label: 'Copy the link of this run', run: () => this.title.share(), when: () => this.run_ !== null },
    ]);
  }
}

try {
  const library = await loadLibrary();
  wake();
  new Playground(JSON.parse($('page').textContent), library).registerShortcuts();
} catch (error) {
  $('banner').querySelector('p').textContent = error.message;
  $('banner').hidden = false;
  throw error;
}
