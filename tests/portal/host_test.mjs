// The portal on a real host, from log-in to deletion: a machine made from an image of a small Linux
// (scripts/guest-small) boots on its console, hears what is typed there and on its screen, is photographed;
// an appliance comes in by upload; all of it is deleted.
//   node host_test.mjs --build BUILD [--disk small.img]
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { findChromium, login, openBrowser, visit, watch } from './browser.mjs';
import { Host } from './host.mjs';
import { expect, option, runTests, test, until } from './tap.mjs';

const PATIENCE = 180_000;
const build = resolve(option('build', 'build'));
const small = option('disk', join(build, 'guest/small/small.img'));

if (!findChromium()) {
  console.log('1..0 # SKIP no chromium: scripts/setup test');
  process.exit(77);
}

if (!existsSync(small)) {
  console.log(`1..0\n# ${small} is missing: make guests`);
  process.exit(1);
}

const host = new Host(build);
const files = mkdtempSync(join(tmpdir(), 'mullion-f'));
const browser = await openBrowser();
const url = await host.url();
const context = await browser.newContext({
  ignoreHTTPSErrors: true,
  acceptDownloads: true,
  viewport: { width: 1280, height: 800 },
});
const page = await context.newPage();
watch(page);
page.setDefaultTimeout(Number(option('patience', PATIENCE)));
const errors = [];
page.on('pageerror', (e) => errors.push(e.message));
page.on('console', (m) => /Content Security Policy/.test(m.text()) && errors.push(m.text()));
const foreign = [];
page.on(
  'request',
  (r) => /^https?:/.test(r.url()) && !r.url().startsWith(url) && foreign.push(r.url()),
);

const machines = async () => (await host.call('GET', '/machines')).json.items;
const dialog = page.locator('dialog');
const tab = (name) => page.getByRole('navigation', { name: 'Machine' }).getByRole('link', { name });

/** What the terminal shows, as a screen reader is told it. */
const terminal = () => page.locator('.xterm-accessibility').innerText();

function pngSize(path) {
  const bytes = readFileSync(path);
  expect(bytes.subarray(1, 4).toString() === 'PNG', 'the screenshot is no PNG');
  return [bytes.readUInt32BE(16), bytes.readUInt32BE(20), bytes.length];
}

async function screenshot() {
  const [saved] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Screenshot' }).click(),
  ]);
  const path = join(files, 'screen.png');
  await saved.saveAs(path);
  return pngSize(path);
}

test('refuses a wrong password and lets the right one in', async () => {
  await page.goto(url);
  await page.getByLabel('User').fill('admin');
  await page.getByLabel('Password').fill('wrong');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByText('User or password is wrong.').waitFor();
  await login(page, url, 'admin', host.password);
  await page.getByRole('heading', { level: 1 }).waitFor();
});

test('uploads an image', async () => {
  const path = join(files, 'small.qcow2');
  execFileSync(join(build, 'mullion'), ['image', 'convert', small, path, '--to', 'qcow2']);
  await page.getByRole('button', { name: 'Import', exact: true }).click();
  await page.locator('input[type=file]').setInputFiles(path);
  expect(
    (await dialog.getByLabel('Name', { exact: true }).inputValue()) === 'small',
    'name not guessed',
  );
  await page.getByRole('button', { name: 'Upload and import' }).click();
  await until(
    'the image',
    async () => (await host.call('GET', '/images')).json.items,
    (list) => list.some((i) => i.name === 'small' && i.state === 'ready'),
  );
  await page.getByRole('button', { name: 'Close' }).first().click();
});

test('makes a machine from the image and starts it', async () => {
  await page.getByRole('button', { name: 'New machine' }).first().click();
  await page.getByRole('radio', { name: /small/ }).click();
  await page.getByRole('button', { name: 'Next' }).click();
  await dialog.getByLabel('Name', { exact: true }).fill('first');
  await dialog.getByLabel('Memory').fill('256 MiB');
  await dialog.getByLabel('CPUs').fill('1');
  await dialog.getByLabel('Network').selectOption('none');
  await dialog.getByRole('button', { name: /Review/ }).click();
  await page.getByRole('button', { name: 'Create and start' }).click();
  await page.getByRole('heading', { level: 1, name: 'first' }).waitFor();
  await page.locator('.machine-lead .status', { hasText: 'Running' }).waitFor();
});

test('shows it boot on the serial console and types into it', async () => {
  await tab('Console').click();
  await page.getByRole('button', { name: 'Serial' }).click();
  await until('the log-in', terminal, (t) => t.includes('login:'), PATIENCE);
  await page.locator('.xterm-screen').click();
  await page.keyboard.type('root\n', { delay: 20 });
  await until('the prompt', terminal, (t) => t.includes('Welcome, root'), PATIENCE);
  await page.keyboard.type('echo $((6 * 7)) is the answer\n', { delay: 20 });
  await until('the answer', terminal, (t) => t.includes('42 is the answer'), PATIENCE);
});

test('shows its screen, types on it, and saves screenshots', async () => {
  await page.getByRole('button', { name: 'Screen', exact: true }).click();
  await page.locator('.vnc canvas').waitFor();
  await page.getByRole('status').filter({ hasText: 'Connected' }).waitFor();
  const [width, height, before] = await screenshot();
  expect(width >= 640 && height >= 350, `a screen of ${width}x${height}`);
  await page.getByRole('button', { name: 'Type text' }).click();
  await dialog.getByLabel('Text').fill('root\nuname -a; cat /proc/cpuinfo\n');
  await page.getByRole('button', { name: 'Type it' }).click();
  await dialog.waitFor({ state: 'detached' });
  await until(
    'the screen to change',
    async () => (await screenshot())[2],
    (n) => n > before + 100,
  );
  await page.locator('.vnc canvas').click();
  // Keys as fingers press them, Shift among them: noVNC sends scan codes where it can.
  await page.keyboard.type('echo screen ', { delay: 50 });
  for (const key of ['Shift+Digit4', 'Shift+Digit9', 'Shift+Digit9'])
    await page.keyboard.press(key);
  await page.keyboard.type('44-2', { delay: 50 });
  for (const key of ['Shift+Digit0', 'Shift+Digit0', 'Shift+Period'])
    await page.keyboard.press(key);
  await page.keyboard.type('/dev/tty', { delay: 50 });
  await page.keyboard.press('Shift+KeyS');
  await page.keyboard.type('0\n', { delay: 50 });
  await page.getByRole('button', { name: 'Serial' }).click();
  await until('what was typed on the screen', terminal, (t) => t.includes('screen 42'), PATIENCE);
});

test('keeps changes of a running machine for its next start', async () => {
  await tab('Hardware').click();
  await page.getByLabel('CPUs').fill('2');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('1 change at the next start').waitFor();
  await page.getByRole('button', { name: 'Drop them' }).click();
  await page.getByText('1 change at the next start').waitFor({ state: 'detached' });
});

test('makes a pool, and limits the machine while it runs', async () => {
  const [first] = await machines();
  await page.goto(`${url}#/pools`);
  await page.getByRole('button', { name: 'New pool' }).click();
  await dialog.getByLabel('Name', { exact: true }).fill('gold');
  await dialog.getByLabel('CPU shares').selectOption('high');
  await dialog.getByLabel('CPU limit').fill('2');
  await dialog.getByRole('button', { name: 'Create' }).click();
  await dialog.getByText('must be at least 5').waitFor();
  await dialog.getByLabel('CPU limit').fill('150');
  await dialog.getByRole('button', { name: 'Create' }).click();
  await page.getByRole('row', { name: /gold.*high shares, 150 % at most/ }).waitFor();
  await page.goto(`${url}#/machines/${first.id}/resources`);
  await page.getByLabel('Resource pool').selectOption({ label: 'gold' });
  await page.getByLabel('CPU limit').fill('40');
  await page.getByRole('button', { name: 'Save' }).click();
  const path = `/machines/${first.id}`;
  await until(
    'the limit to hold',
    async () => (await host.call('GET', path)).json,
    (m) => m.granted?.cpu === 40 && m.resources.cpu.limit === 40,
  );
  await page.getByRole('group', { name: 'Tree by' }).getByRole('button', { name: 'Pools' }).click();
  await page.getByRole('tree', { name: 'Machines by pool' }).getByText('gold').waitFor();
  await page
    .getByRole('group', { name: 'Tree by' })
    .getByRole('button', { name: 'Folders' })
    .click();
});

test('powers it off after saying what happens', async () => {
  await page.getByRole('button', { name: 'More', exact: true }).click();
  await page.getByRole('menuitem', { name: 'Power off' }).click();
  await page.getByText('The power is cut at once').waitFor();
  await dialog.getByRole('button', { name: 'Power off' }).click();
  await page.locator('.machine-lead .status', { hasText: 'Stopped' }).waitFor();
});

test('imports an appliance by upload, and shows the task', async () => {
  const [first] = await machines();
  const exported = await host.task('POST', `/machines/${first.id}/export`, { format: 'ova' });
  const path = join(files, 'appliance.ova');
  writeFileSync(path, (await host.call('GET', exported.result.download)).body);
  await page.getByRole('button', { name: 'Import', exact: true }).click();
  await page.locator('input[type=file]').setInputFiles(path);
  const chosen = page.getByRole('radio', { name: /Appliance/ });
  expect(
    (await chosen.getAttribute('aria-checked')) === 'true',
    'an OVA is not taken for an appliance',
  );
  await dialog.getByLabel('Name of the machine').fill('second');
  await page.getByRole('button', { name: 'Upload and import' }).click();
  await until('the machine', machines, (list) =>
    list.some((m) => m.name === 'second' && m.state === 'stopped'),
  );
  await page.getByRole('button', { name: 'Close' }).first().click();
  await page
    .getByRole('button', { name: /^Tasks/ })
    .first()
    .click();
  const row = page
    .getByRole('table', { name: 'Tasks' })
    .getByRole('row', { name: /Import.*Succeeded/ });
  await row.first().waitFor();
});

test('takes a snapshot of a disk', async () => {
  await tab('Disks').click();
  await page.getByRole('button', { name: 'Snapshots' }).click();
  await page.getByLabel('Name of the new snapshot').fill('clean');
  await page.getByRole('button', { name: 'Take snapshot' }).click();
  await page.locator('.snapshots li', { hasText: 'clean' }).waitFor();
});

test('deletes the machines with their disks', async () => {
  await page.goto(`${url}#/machines`);
  await page.getByRole('checkbox', { name: 'Select all' }).click();
  await page
    .getByRole('toolbar', { name: 'Chosen machines' })
    .getByRole('button', { name: 'Delete' })
    .click();
  await page.getByText('There is no way back').waitFor();
  await dialog.getByRole('button', { name: 'Delete 2 machines' }).click();
  await page.getByText('No machines yet').waitFor();
  expect((await machines()).length === 0, 'machines are left');
});

test('shows every other page without an error', async () => {
  for (const [path, name] of [
    ['images', 'Images'],
    ['datastores', 'Datastores'],
    ['networks', 'Networks'],
    ['pools', 'Resource pools'],
    ['events', 'Events'],
    ['access', 'Access'],
    ['access/groups', 'Access'],
    ['access/grants', 'Access'],
    ['access/roles', 'Access'],
    ['access/tokens', 'Access'],
    ['audit', 'Audit'],
    ['settings', 'Settings'],
  ]) {
    await visit(page, url, path);
    await page.getByRole('heading', { level: 1, name }).waitFor();
    expect((await page.locator('.banner.bad').count()) === 0, `${path} shows a problem`);
  }
});

test('makes a network, renames it and tells of it', async () => {
  await page.goto(`${url}#/networks`);
  await page.getByRole('button', { name: 'New network' }).click();
  await dialog.getByRole('radio', { name: /^User/ }).click();
  await dialog.getByLabel('Name', { exact: true }).fill('no name');
  await dialog.getByRole('button', { name: 'Create' }).click();
  await dialog.locator('.field.invalid').waitFor();
  await dialog.getByLabel('Name', { exact: true }).fill('outward');
  await dialog.getByRole('button', { name: 'Create' }).click();
  await page.getByRole('heading', { level: 1, name: 'outward' }).waitFor();
  const tabs = page.getByRole('navigation', { name: 'Network' });
  await tabs.getByRole('link', { name: 'Settings' }).click();
  await page.getByLabel('Name', { exact: true }).fill('outside');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('heading', { level: 1, name: 'outside' }).waitFor();
  await tabs.getByRole('link', { name: 'Events' }).click();
  for (const text of ['network outward was created', 'network outside was changed'])
    await page.locator('.event-list').getByText(text).waitFor();
  await page.getByRole('button', { name: 'Delete', exact: true }).click();
  await dialog.getByRole('button', { name: 'Delete' }).click();
  await page.getByRole('heading', { level: 1, name: 'Networks' }).waitFor();
  await page.getByRole('row', { name: /outside/ }).waitFor({ state: 'detached' });
});

test('makes a token and a user', async () => {
  await page.goto(`${url}#/access/tokens`);
  await page.getByRole('button', { name: 'New token' }).click();
  await dialog.getByLabel('Name').fill('script');
  await dialog.getByRole('button', { name: 'Create' }).click();
  await page.getByText('it is not shown again').waitFor();
  await page.getByRole('button', { name: 'Done' }).click();
  await page.goto(`${url}#/access`);
  await page.getByRole('button', { name: 'New user' }).click();
  await dialog.getByLabel('User', { exact: true }).fill('marek');
  await dialog.getByLabel('Password').fill('a-long-password-1');
  await dialog.getByRole('button', { name: 'Create' }).click();
  await page.getByRole('row', { name: /marek/ }).waitFor();
});

test('logs out', async () => {
  await page.getByRole('button', { name: /^Account/ }).click();
  await page.getByRole('menuitem', { name: /Log out/ }).click();
  await page.getByRole('heading', { name: 'Log in to Mullion' }).waitFor();
});

test('asked no other host, broke no policy and threw nothing', async () => {
  expect(foreign.length === 0, `asked: ${foreign}`);
  expect(errors.length === 0, `errors: ${errors.join('; ')}`);
});

let failed = 1;
try {
  failed = await runTests({ story: true });
  if (failed) await page.screenshot({ path: join(tmpdir(), 'mullion-portal-failed.png') });
} finally {
  await browser.close();
  await host.close();
  rmSync(files, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
