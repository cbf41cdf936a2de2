// Lays out JSON without parsing it into values: numbers keep every digit, members that come twice stay, and a body that is not JSON is shown up to where it goes wrong.

const token = /\s+|("(?:[^"\\]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null)|([{}[\],:])/y;
const maxDepth = 64;

/**
 * @returns {{lines: {indent: number, pointer: string, parts: {kind: string, text: string}[]}[], rest: string}}
 *   the laid out lines; rest is what could not be read as JSON ('' when all could)
 */
export function layOut(text, maxLines = 5000) {
  const lines = [];
  let parts = [];
  let pointer = '';
  const stack = [];
  let at = 0;
  let expectKey = false;
  let value = true;

  const here = () => stack.map(frame => `/${frame.key}`).join('');
  const flush = indent => {
    if (parts.length) {
      lines.push({ indent, pointer, parts });
      parts = [];
    }
  };
  const put = (kind, piece) => {
    if (!parts.length) {
      pointer = here();
    }
    parts.push({ kind, text: piece });
  };
  const done = () => ({ lines, rest: text.slice(at) });

  while (at < text.length) {
    token.lastIndex = at;
    const match = token.exec(text);
    if (!match || lines.length > maxLines || stack.length > maxDepth) {
      flush(stack.length);
      return done();
    }
    const [piece, string, number, word, mark] = match;
    if (mark === '{' || mark === '[') {
      if (!value) {
        flush(stack.length);
        return done();
      }
      put('mark', mark);
      const closing = mark === '{' ? '}' : ']';
      const after = /\S/.exec(text.slice(at + 1, at + 200));
      if (after?.[0] === closing) {
        at += 1 + after.index;
        put('mark', closing);
        value = false;
      } else {
        flush(stack.length);
        stack.push({ closing, key: mark === '[' ? 0 : '' });
        expectKey = mark === '{';
        value = true;
      }
    } else if (mark === '}' || mark === ']') {
      if (stack.at(-1)?.closing !== mark) {
        flush(stack.length);
        return done();
      }
      flush(stack.length);
      stack.pop();
      put('mark', mark);
      value = false;
    } else if (mark === ',') {
      if (!stack.length || value) {
        flush(stack.length);
        return done();
      }
      put('mark', ',');
      flush(stack.length);
      const frame = stack.at(-1);
      if (frame.closing === ']') {
        frame.key += 1;
      }
      expectKey = frame.closing === '}';
      value = true;
    } else if (mark === ':') {
      put('mark', ': ');
      value = true;
    } else if (string !== undefined || number !== undefined || word !== undefined) {
      if (!value) {
        flush(stack.length);
        return done();
      }
      if (expectKey) {
        if (string === undefined) {
          flush(stack.length);
          return done();
        }
        stack.at(-1).key = string.slice(1, -1).replaceAll('~', '~0').replaceAll('/', '~1');
        put('key', string);
        expectKey = false;
        value = false;
      } else {
        put(string !== undefined ? 'string' : number !== undefined ? 'number' : 'word', piece);
        value = false;
      }
    }
    at += piece.length;
  }
  flush(stack.length);
  return done();
}

/** The laid out text; the text itself where it is not JSON. */
export function pretty(text) {
  const { lines, rest } = layOut(text, 20_000);
  return rest.trim() ? text : lines.map(line => '  '.repeat(line.indent) + line.parts.map(part => part.text).join('')).join('\n');
}

/** Lines of two texts side by side: {kind: 'same'|'removed'|'added', text}. */
export function diff(before, after) {
  const left = before.split('\n');
  const right = after.split('\n');
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) {
    start += 1;
  }
  let end = 0;
  while (end < left.length - start && end < right.length - start && left[left.length - 1 - end] === right[right.length - 1 - end]) {
    end += 1;
  }
  const same = line => ({ kind: 'same', text: line });
  return [
    ...left.slice(0, start).map(same),
    ...middle(left.slice(start, left.length - end), right.slice(start, right.length - end)),
    ...left.slice(left.length - end).map(same),
  ];
}

function middle(left, right) {
  if (left.length * right.length > 1_000_000) {
    return [...left.map(text => ({ kind: 'removed', text })), ...right.map(text => ({ kind: 'added', text }))];
  }
  const width = right.length + 1;
  const longest = new Uint32Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      longest[i * width + j] = left[i] === right[j] ? longest[(i + 1) * width + j + 1] + 1 : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const lines = [];
  let i = 0;
  let j = 0;
  while (i < left.length && j < right.length) {
    if (left[i] === right[j]) {
      lines.push({ kind: 'same', text: left[i] });
      i += 1;
      j += 1;
    } else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
      lines.push({ kind: 'removed', text: left[i++] });
    } else {
      lines.push({ kind: 'added', text: right[j++] });
    }
  }
  return [...lines, ...left.slice(i).map(text => ({ kind: 'removed', text })), ...right.slice(j).map(text => ({ kind: 'added', text }))];
}
