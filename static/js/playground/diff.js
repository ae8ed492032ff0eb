// Pure functions over what two lanes wrote: where they part, and which words differ.

/** The index of the first token in which two lists of ids differ; null while one is the start of the other.
 *  `ended` says that neither grows any more: then a difference in length counts too. */
export function divergence(ids, others, ended) {
  const shared = Math.min(ids.length, others.length);
  for (let i = 0; i < shared; i++) if (ids[i] !== others[i]) return i;
  return ended && ids.length !== others.length ? shared : null;
}

// A word with the space before it: spaces alone would match everywhere and tear sentences into single words.
const words = text => text.match(/\s*(?:[\p{L}\p{N}'’]+|[^\s\p{L}\p{N}])|\s+$/gu) ?? [];

/** What changes from `from` to `to`, word by word: [{ kind: 'same' | 'added' | 'removed', text }], the shortest way. */
export function diff(from, to) {
  const a = words(from), b = words(to);
  const lengths = commonLengths(a, b);
  const width = b.length + 1;
  const parts = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && same(a[i], b[j])) push(parts, 'same', b[j++], i++);
    else if (j === b.length || (i < a.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) push(parts, 'removed', a[i++]);
    else push(parts, 'added', b[j++]);
  }
  return parts;
}

const same = (one, other) => one.trim() === other.trim();

/** lengths[i * (b.length + 1) + j] is the length of the longest common subsequence of a from i and b from j. */
function commonLengths(a, b) {
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] = same(a[i], b[j])
        ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  return lengths;
}

function push(parts, kind, text) {
  const last = parts.at(-1);
  if (last?.kind === kind) last.text += text;
  else parts.push({ kind, text });
}
