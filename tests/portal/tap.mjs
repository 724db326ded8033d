// Tests that say how they went as TAP, one after the other.

const tests = [];

export function test(name, run) {
  tests.push({ name, run });
}

export function expect(condition, what) {
  if (!condition) throw new Error(what);
}

/** Ask until the answer is one that `good` likes; @throws with the last one after `ms`. */
export async function until(what, answer, good = Boolean, ms = 90_000) {
  const end = Date.now() + ms;
  for (;;) {
    const last = await answer();
    if (good(last)) return last;
    if (Date.now() > end)
      throw new Error(`${what}: waited ${ms / 1000} s, last: ${JSON.stringify(last)}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** @param story  each test goes on where the one before ended: the first failure ends it */
export async function runTests({ only, story = false } = {}) {
  const chosen = tests.filter((t) => !only || t.name.includes(only));
  let failed = 0;
  console.log(`1..${chosen.length}`);
  for (const [i, { name, run }] of chosen.entries()) {
    const start = Date.now();
    if (story && failed) {
      console.log(`not ok ${i + 1} ${name}: not reached`);
      continue;
    }
    try {
      await run();
      console.log(`ok ${i + 1} ${name} (${Date.now() - start} ms)`);
    } catch (error) {
      failed++;
      console.log(`not ok ${i + 1} ${name}`);
      console.log(String(error.stack ?? error).replace(/^/gm, '# '));
    }
  }
  return failed;
}

export function option(name, fallback) {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : process.argv[at + 1];
}
