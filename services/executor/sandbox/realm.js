// What a realm is before users' code enters it, and the only way into that code.
// Decides: which globals exist, that all built-ins are frozen, what one run may leave behind (nothing), how values leave (JSON text).
// Leaves: compiling modules to function bodies to modules.py, limits of time and memory to the walls and the executor.
// Evaluates to a function (limits) => doors. Users' code can reach neither the doors nor anything declared here but `console`
// and the functions put on the global object.
(function (maxOutput, maxConsoleLines, maxConsoleBytes) {
  'use strict';

  const AsyncFunction = (async () => {}).constructor;
  const { defineProperty, getOwnPropertyDescriptor, getPrototypeOf } = Object;
  const { ownKeys } = Reflect;
  const { parse, stringify } = JSON;

  // Half of a surrogate pair, as cutting a text through an emoji leaves it, is nothing that readers of JSON take: U+FFFD
  // stands in its place, as in plain paths.
  const half = /\\(?:[^u]|u(?:d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(d[89a-f][0-9a-f]{2})))/gi;
  const written = (value) => {
    const json = stringify(value);
    if (json === undefined || !(json.includes('\\ud') || json.includes('\\uD'))) return json;
    return json.replace(half, (all, unit) => (unit ? '\\ufffd' : all));
  };

  // --- The console of one run -------------------------------------------------------------------------------------------------
  let lines = [];
  let consoleBytes = 0;
  let consoleFull = false;

  const utf8Length = (text) => {
    let length = text.length;
    for (let i = 0; i < text.length; i += 1) {
      const unit = text.charCodeAt(i);
      if (unit > 0x7ff && (unit < 0xd800 || unit > 0xdfff)) length += 2;
      else if (unit > 0x7f) length += 1;
    }
    return length;
  };

  const shown = (value) => {
    if (typeof value === 'string') return value;
    if (typeof value === 'function') return `[function ${String(value.name)}]`;
    if (typeof value === 'bigint') return `${value}n`;
    if (value === null || typeof value !== 'object') return String(value);
    if (value instanceof Error) return `${value.name}: ${value.message}`;
    try {
      return stringify(value) ?? String(value);
    } catch (problem) {
      return `[${problem instanceof Error ? problem.message : 'unprintable'}]`;
    }
  };

  const record = (prefix, values) => {
    if (consoleFull) return;
    let line = prefix;
    for (let i = 0; i < values.length; i += 1) line += (i ? ' ' : '') + shown(values[i]).slice(0, maxConsoleBytes);
    line = line.slice(0, maxConsoleBytes);
    consoleBytes += utf8Length(line);
    if (lines.length >= maxConsoleLines || consoleBytes > maxConsoleBytes) {
      consoleFull = true;
      line = `[The console is full: ${maxConsoleLines} lines or ${maxConsoleBytes} bytes a run. The rest is left out.]`;
    }
    defineProperty(lines, lines.length, { value: line, writable: true, enumerable: true, configurable: true });
  };

  const console = {
    debug: (...values) => record('', values),
    log: (...values) => record('', values),
    info: (...values) => record('', values),
    warn: (...values) => record('[warn] ', values),
    error: (...values) => record('[error] ', values),
  };

  // --- Globals ----------------------------------------------------------------------------------------------------------------
  // Memory shared between runs or threads, ways to watch the collector, and a second compiler: none of it serves a code step.
  for (const name of ['WeakRef', 'FinalizationRegistry', 'SharedArrayBuffer', 'Atomics', 'WebAssembly']) delete globalThis[name];

  const put = (name, value) => defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
  const absent = {
    setTimeout: 'wait with a wait step', setInterval: 'repeat with a loop step', setImmediate: 'code runs to its end at once',
    fetch: 'call other systems with an HTTP step', XMLHttpRequest: 'call other systems with an HTTP step',
    require: 'packages cannot be loaded',
  };
  for (const name of ownKeys(absent)) {
    put(name, function () {
      throw new Error(`${name} is not available in code steps: ${absent[name]}.`);
    });
  }
  put('console', console);
  put('queueMicrotask', (callback) => {
    Promise.resolve().then(() => callback());
  });
  // The function library of expressions is put here, before the freeze.

  // --- Freezing ---------------------------------------------------------------------------------------------------------------
  // A frozen prototype would forbid `error.name = 'X'` or `Child.prototype.constructor = Child` on everything that inherits it.
  // So the names that such code assigns become accessors that write to the inheriting object.
  const allowOverride = (prototype, names) => {
    for (const name of names) {
      const was = getOwnPropertyDescriptor(prototype, name);
      if (!was || !('value' in was)) continue;
      const accessor = {
        get() { return was.value; },
        set(value) {
          if (this === prototype) throw new TypeError(`Cannot assign to read only property '${String(name)}' of a built-in`);
          const own = getOwnPropertyDescriptor(this, name);
          defineProperty(this, name, own ? { value } : { value, writable: true, enumerable: true, configurable: true });
        },
      };
      defineProperty(prototype, name, { get: accessor.get, set: accessor.set, enumerable: was.enumerable, configurable: false });
    }
  };
  const errors = [Error, AggregateError, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError];
  allowOverride(Object.prototype,
    ['constructor', 'hasOwnProperty', 'isPrototypeOf', 'propertyIsEnumerable', 'toLocaleString', 'toString', 'valueOf']);
  allowOverride(Function.prototype, ['apply', 'bind', 'call', 'constructor', 'length', 'name', 'toString']);
  for (const error of errors) allowOverride(error.prototype, ['constructor', 'message', 'name', 'toString']);

  const seen = new Set();
  const waiting = [];
  const reach = (value) => {
    if ((typeof value === 'object' && value !== null) || typeof value === 'function') {
      if (!seen.has(value)) {
        seen.add(value);
        waiting.push(value);
      }
    }
  };
  reach(globalThis);
  // Those that no global leads to.
  const segments = new Intl.Segmenter().segment('');
  for (const hidden of [
    (function* () {})(), (async function* () {})(), async () => {}, function* () {}, async function* () {},
    [][Symbol.iterator](), new Map()[Symbol.iterator](), new Set()[Symbol.iterator](), ''[Symbol.iterator](), ''.matchAll(/x/g),
    Iterator.from({ next() {} }), [].values().map((x) => x), segments, segments[Symbol.iterator](),
    getOwnPropertyDescriptor((function () { return arguments; })(), 'callee').get,
  ]) {
    reach(typeof hidden === 'function' ? hidden : getPrototypeOf(hidden));
    reach(getPrototypeOf(getPrototypeOf(hidden)));
  }
  while (waiting.length) {
    const value = waiting.pop();
    reach(getPrototypeOf(value));
    for (const key of ownKeys(value)) {
      const property = getOwnPropertyDescriptor(value, key);
      reach(property.value);
      reach(property.get);
      reach(property.set);
    }
    Object.freeze(value);
  }

  // --- The way in and out -----------------------------------------------------------------------------------------------------
  const nothing = /(?:)/;
  const missingPath = /^(?:Cannot (?:read properties|destructure property .*) of (?:undefined|null)\b|Cannot destructure .* as it is (?:undefined|null)|(?:undefined|null) is not |Cannot convert undefined or null to object|Spread syntax requires .*undefined)/;
  let outcome;

  const begin = () => {
    if (lines.length) lines = [];
    consoleBytes = 0;
    consoleFull = false;
    outcome = undefined;
    nothing.exec(''); // RegExp.$1, lastMatch and the like still held the last run's text
  };

  const described = (thrown) => {
    try {
      if (thrown instanceof Error) {
        const name = String(thrown.name);
        const message = String(thrown.message);
        return (name === 'Error' && message ? message : message ? `${name}: ${message}` : name).slice(0, 2000).toWellFormed();
      }
      return (typeof thrown === 'object' && thrown !== null ? stringify(thrown) : String(thrown)).slice(0, 2000).toWellFormed();
    } catch {
      return 'A value was thrown that cannot be shown';
    }
  };

  // Frames of the author's own source, counted in the author's lines.
  const frames = (thrown, file, offset) => {
    const found = [];
    try {
      const text = thrown instanceof Error && typeof thrown.stack === 'string' ? thrown.stack.slice(0, 16384) : '';
      for (const line of text.split('\n')) {
        const at = line.lastIndexOf(`${file}:`);
        if (at < 0 || found.length >= 10) continue;
        const place = /^(\d+):(\d+)/.exec(line.slice(at + file.length + 1));
        const name = /^\s+at (?:async )?([\w$.<>]+) \(/.exec(line);
        if (place && place[1] > offset) found.push([name ? name[1] : '', place[1] - offset, +place[2]]);
      }
    } catch { /* a stack that cannot be read gives no frames */ }
    return found;
  };

  const fail = (thrown, file, offset, more) => 'e' + written({
    message: described(thrown), frames: frames(thrown, file, offset), console: lines, ...more,
  });

  const finish = (value) => {
    let json;
    try {
      json = written(value) ?? 'null';
    } catch (problem) {
      return 'i' + written({ message: `The value cannot be written as JSON: ${described(problem)}`, console: lines });
    }
    if (json.length > maxOutput) {
      return 'i' + written({ message: `The value is larger than the ${maxOutput} bytes allowed`, console: lines });
    }
    return lines.length ? `c${written(lines)}\n${json}` : `o${json}`;
  };

  // A body that the constructor takes is a body: text that closes it early and goes on is refused by the language itself.
  const compile = (parameters, body, asynchronous) => (asynchronous ? AsyncFunction : Function)(...parameters, body);

  const code = (body, asynchronous, file, offset) => {
    let factory;
    try {
      factory = compile([], body, asynchronous);
    } catch (problem) {
      return described(problem);
    }
    const settle = async (value) => {
      try {
        let given = await value;
        if (asynchronous && typeof given === 'function') given = await given(parse(input));
        outcome = finish(given);
      } catch (thrown) {
        outcome = fail(thrown, file, offset);
      }
    };
    let input;
    return (text) => {
      begin();
      try {
        let value;
        if (asynchronous) {
          input = text;
          value = factory();
        } else {
          const entry = factory();
          if (typeof entry !== 'function') throw new TypeError('The export `code` is not a function');
          value = entry(parse(text));
        }
        if (value !== null && (typeof value === 'object' || typeof value === 'function') && typeof value.then === 'function') {
          settle(value);
          return 'p';
        }
        return finish(value);
      } catch (thrown) {
        return fail(thrown, file, offset);
      }
    };
  };

  // Called after the microtasks ran dry: what has not settled now never will.
  const take = () => outcome ?? 'e' + written({
    message: 'The code waits for a promise that nothing can settle any more', frames: [], console: lines,
  });

  // The text must stand as an expression in two surroundings: what closes one bracket early does not fit the other.
  const expression = (parameters, text) => {
    compile([], `"use strict";[(${text}\n)]`, false);
    return compile(parameters, `"use strict";return (\n${text}\n)\n//# sourceURL=expression`, false);
  };
  const read = (text) => parse(text);
  const mayChange = /[^=!<>]=(?![=>])|\+\+|--|\b(?:sort|reverse|push|pop|shift|unshift|splice|fill|copyWithin|delete|assign|definePropert|setPrototypeOf|Reflect|eval|Function|set[A-Z]\w*)/;

  const isMissingPath = (thrown) => {
    try {
      if (thrown instanceof TypeError) return missingPath.test(String(thrown.message));
      return thrown instanceof ReferenceError && / is not defined$/.test(String(thrown.message));
    } catch {
      return false; // a thrown proxy
    }
  };

  const expressions = (namesJson, textsJson) => {
    const names = parse(namesJson);
    const texts = parse(textsJson);
    const compiled = [];
    for (let i = 0; i < texts.length; i += 1) {
      try {
        compiled.push([expression(names, texts[i]), mayChange.test(texts[i])]);
      } catch (problem) {
        return `${i}:${described(problem)}`;
      }
    }
    return (...documents) => {
      begin();
      let shared;
      const results = [];
      for (let i = 0; i < compiled.length; i += 1) {
        let value;
        try {
          if (compiled[i][1]) value = compiled[i][0](...documents.map(read));
          else value = compiled[i][0](...(shared ??= documents.map(read)));
          if (value instanceof Promise) throw new TypeError('An expression cannot wait for a promise; use a code step');
        } catch (thrown) {
          if (!isMissingPath(thrown)) return fail(thrown, 'expression', 3, { expression: i });
          value = null;
        }
        try {
          results.push(written(value) ?? 'null');
        } catch (problem) {
          return 'i' + written({ message: `Expression ${i + 1} gives a value that cannot be written as JSON: ${described(problem)}` });
        }
      }
      const json = `[${results.join(',')}]`;
      if (json.length > maxOutput) return 'i' + written({ message: `The values are larger than the ${maxOutput} bytes allowed` });
      return `o${json}`;
    };
  };
  const checkExpression = (text) => {
    try {
      expression([], text);
      return '';
    } catch (problem) {
      return described(problem);
    }
  };

  const checkBody = (body, asynchronous) => {
    try {
      compile([], body, asynchronous);
      return '';
    } catch (problem) {
      return described(problem);
    }
  };

  return [code, take, expressions, checkExpression, checkBody];
})
