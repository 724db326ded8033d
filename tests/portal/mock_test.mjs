// The portal on its mock host: what a real one is slow or unwilling to show. Every page checked by axe-core
// in light and dark; five hundred machines; a host that goes away; an upload that breaks; the keyboard.
//   node mock_test.mjs --dist build/portal/dist
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { findChromium, login, openBrowser, PORTAL, visit, watch } from './browser.mjs';
import { expect, option, runTests, test, until } from './tap.mjs';

if (!findChromium()) {
  console.log('1..0 # SKIP no chromium: scripts/setup test');
  process.exit(77);
}

const { startMock } = await import('../../portal/mock/server.mjs');
const axe = readFileSync(
  createRequire(`${PORTAL}package.json`).resolve('axe-core/axe.min.js'),
  'utf8',
);
const dist = resolve(option('dist', 'build/portal/dist'));
const mock = await startMock({ machines: 500, dist });
const browser = await openBrowser();
const machine = [...mock.api.machines.values()].find((m) => m.pending);
const at = (tab) => `machines/${machine.id}${tab && `/${tab}`}`;
const lab = mock.api.lists.networks.find((n) => n.name === 'lab');

async function open(options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    reducedMotion: 'reduce',
    bypassCSP: true, // for axe, which is put into the page
    ...options,
  });
  const page = await context.newPage();
  watch(page);
  page.setDefaultTimeout(Number(option('patience', 60_000)));
  await login(page, mock.url);
  return page;
}

async function checkAxe(page, what) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'],
    });
    return violations.map(
      (v) =>
        `${v.id}: ${v.nodes
          .slice(0, 3)
          .map((n) => n.target.join(' '))
          .join(' | ')}`,
    );
  });
  expect(!found.length, `${what}: ${found.join('; ')}`);
}

const PAGES = [
  '',
  'machines',
  'images',
  'datastores',
  `datastores/${mock.api.lists.datastores[0].id}/images`,
  'networks',
  `networks/${lab.id}`,
  `networks/${lab.id}/machines`,
  `networks/${lab.id}/settings`,
  'pools',
  'events',
  'access',
  'access/groups',
  'access/grants',
  'access/roles',
  'access/tokens',
  'audit',
  'settings',
  at(''),
  at('hardware'),
  at('disks'),
  at('networks'),
  at('resources'),
  at('monitor'),
  at('events'),
  at('permissions'),
  at('console'),
  'nowhere',
];

for (const colorScheme of ['light', 'dark'])
  test(`axe finds nothing on any page, ${colorScheme}`, async () => {
    const page = await open({ colorScheme });
    const found = [];
    for (const path of PAGES) {
      await visit(page, mock.url, path);
      await page.locator('main h1').waitFor();
      await checkAxe(page, path || 'overview').catch((e) => found.push(e.message));
    }
    await page.getByRole('button', { name: 'New machine' }).first().click();
    await checkAxe(page, 'create wizard').catch((e) => found.push(e.message));
    await page.keyboard.press('Escape');
    await page.keyboard.press('Control+k');
    await checkAxe(page, 'command palette').catch((e) => found.push(e.message));
    await page.context().close();
    expect(!found.length, found.join('\n'));
  });

test('axe finds nothing on the log-in page and on a phone', async () => {
  const page = await browser.newPage({ bypassCSP: true });
  await page.goto(mock.url);
  await page.getByLabel('User').waitFor();
  await checkAxe(page, 'login');
  await page.close();
  const phone = await open({ viewport: { width: 390, height: 844 } });
  for (const path of ['', 'machines', at(''), `networks/${lab.id}/settings`]) {
    await visit(phone, mock.url, path);
    await phone.locator('main h1').waitFor();
    await checkAxe(phone, `phone ${path}`);
    const wide = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(wide <= 0, `${path} is ${wide} pixels wider than a phone`);
  }
  await phone.context().close();
});

test('draws only the rows in view of five hundred machines', async () => {
  const page = await open();
  await page.goto(`${mock.url}/#/machines`);
  const table = page.getByRole('table', { name: 'Machines' });
  await table.getByRole('row').nth(5).waitFor();
  expect((await table.getAttribute('aria-rowcount')) === '501', 'not all machines are listed');
  expect((await table.getByRole('row').count()) < 60, 'rows out of view are in the document');
  await table.focus();
  await page.keyboard.press('End');
  await page.keyboard.press('x');
  await page.getByText('1 selected').waitFor();
  await page.keyboard.press('Home');
  await page.keyboard.press('Enter');
  await page.getByRole('navigation', { name: 'Machine' }).waitFor();
  await page.context().close();
});

test('filters, and keeps up with events without asking for the list again', async () => {
  const page = await open();
  await page.goto(`${mock.url}/#/machines?q=${machine.name}`);
  const row = page
    .getByRole('table', { name: 'Machines' })
    .getByRole('row', { name: machine.name });
  await row.first().waitFor();
  let lists = 0;
  page.on(
    'request',
    (r) => /\/machines\?limit/.test(r.url()) && !/fields=/.test(r.url()) && lists++,
  );
  mock.api.changed({ ...machine, state: 'crashed' });
  await page.getByRole('row', { name: new RegExp(`${machine.name} .*Crashed`) }).waitFor();
  mock.api.changed(machine);
  await page.getByRole('row', { name: new RegExp(`${machine.name} .*Running`) }).waitFor();
  expect(lists === 0, 'the list was loaded again');
  await page.context().close();
});

test('says when the host is gone, and comes back by itself', async () => {
  const page = await open();
  const before = await page.evaluate(() => (window.mark = performance.timeOrigin));
  for (const ws of mock.api.listeners) ws.terminate();
  await page.context().setOffline(true);
  await page.getByText('The host does not answer').waitFor();
  await page.context().setOffline(false);
  await page.getByText('The host does not answer').waitFor({ state: 'detached' });
  expect((await page.evaluate(() => window.mark)) === before, 'the page was loaded again');
  await page.context().close();
});

test('goes on with an upload that was broken', async () => {
  const page = await open();
  mock.api.failUploads = 2;
  await page.getByRole('button', { name: 'Import', exact: true }).click();
  await page.locator('input[type=file]').setInputFiles({
    name: 'broken line.qcow2',
    mimeType: 'application/octet-stream',
    buffer: Buffer.alloc(9 << 20, 7),
  });
  await page.getByRole('button', { name: 'Upload and import' }).click();
  await until('the image', () => mock.api.lists.images.some((i) => i.name === 'broken-line'));
  expect(mock.api.failUploads === 0, 'the line was never broken');
  await page.context().close();
});

test('shows what the server finds wrong at its field', async () => {
  const page = await open();
  await page.getByRole('button', { name: 'New machine' }).first().click();
  const dialog = page.locator('dialog');
  await dialog.getByRole('radio', { name: 'debian-12', exact: false }).first().click();
  await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByLabel('Name').fill(machine.name);
  for (let i = 0; i < 2; i++) await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByRole('button', { name: 'Create and start' }).click();
  await dialog.locator('.field.invalid', { hasText: 'There is a machine' }).waitFor();
  await page.context().close();
});

test('acts on many after saying what happens, and leaves the others alone', async () => {
  const page = await open();
  await page.goto(`${mock.url}/#/machines?q=tag:network`);
  await page.getByRole('checkbox', { name: 'Select all' }).click();
  const list = [...mock.api.machines.values()].filter((m) => m.tags.includes('network'));
  const running = list.filter((m) => m.state === 'running').length;
  await page
    .getByRole('toolbar', { name: 'Chosen machines' })
    .getByRole('button', { name: 'Shut down' })
    .click();
  await page
    .getByText(`${list.length - running} other machines of the selection are left alone`)
    .waitFor();
  await page.locator('dialog').getByRole('button', { name: 'Shut down' }).click();
  await until(
    'all of them to stop',
    () => !list.some((m) => ['running', 'stopping'].includes(m.state)),
  );
  await page.context().close();
});

test('makes a network with all there is to say, and refuses what is none', async () => {
  const page = await open();
  await page.goto(`${mock.url}/#/networks`);
  await page.getByRole('button', { name: 'New network' }).click();
  const dialog = page.locator('dialog');
  await dialog.getByRole('radio', { name: /^Bridge/ }).click();
  await dialog.getByLabel('Bridge of the host').fill('br0');
  await dialog.getByLabel('VLAN', { exact: true }).fill('20');
  const create = dialog.getByRole('button', { name: 'Create' });
  await dialog.getByLabel('Name', { exact: true }).fill('backend');
  await dialog.getByLabel('Allowed VLANs').fill('30, x');
  await dialog.locator('.field.invalid', { hasText: 'Numbers from 1 to 4094' }).waitFor();
  expect(await create.isDisabled(), 'what is no VLAN can be sent');
  await dialog.getByRole('radio', { name: /^NAT/ }).click();
  expect((await dialog.getByLabel('VLAN', { exact: true }).count()) === 0, 'NAT has no VLAN');
  await dialog.getByRole('radio', { name: /^Bridge/ }).click();
  await dialog.getByLabel('Allowed VLANs').fill('30-31');
  await dialog.getByRole('radio', { name: /^NAT/ }).click();
  await dialog.getByLabel('Subnet', { exact: true }).fill('10.90.0.0/24');
  await dialog.getByLabel('IPv6', { exact: true }).selectOption('own');
  await dialog.getByLabel('IPv6 prefix').fill('fd12:3456:789a:1::/64');
  await dialog.getByLabel('MTU').fill('100');
  await dialog.getByRole('checkbox', { name: /^DNS/ }).uncheck();
  await dialog.getByLabel('Domain').fill('back.internal');
  await dialog.getByRole('button', { name: 'Reserve an address' }).click();
  await dialog.getByLabel('Machine of reservation 1').fill('db-1');
  await dialog.getByLabel('Address of reservation 1').fill('10.90.0.50');
  await create.click();
  await dialog.locator('.field.invalid', { hasText: 'must be 1280 to 9216' }).waitFor();
  await dialog.getByLabel('MTU').fill('9000');
  await create.click();
  await page.getByRole('heading', { level: 1, name: 'backend' }).waitFor();
  const made = mock.api.lists.networks.find((n) => n.name === 'backend');
  expect(
    made.type === 'nat' && made.mtu === 9000 && made.subnet6 === 'fd12:3456:789a:1::/64',
    JSON.stringify(made),
  );
  expect(made.dhcp && !made.dns && made.reservations['db-1'] === '10.90.0.50', made.reservations);
  expect(made.vlan === null && made.bridge === null, 'what NAT has none of was sent');
  await page.getByText('Machines go out under the address of the host').waitFor();
  await page.context().close();
});

test('edits a network on its own page, shows who is on it, what waits and what has happened', async () => {
  const page = await open();
  await page.goto(`${mock.url}/#/networks`);
  await page.getByRole('table', { name: 'Networks' }).getByRole('link', { name: 'lab' }).click();
  await page.getByRole('heading', { level: 1, name: 'lab' }).waitFor();
  const waits = page.getByRole('region', { name: 'Pending changes' });
  await waits.locator('ins', { hasText: '10.77.0.200' }).waitFor();
  const tab = (name) =>
    page.getByRole('navigation', { name: 'Network' }).getByRole('link', { name });
  await tab('Machines').click();
  const [name] = Object.keys(lab.reservations);
  for (const table of ['Machines', 'Cards of running machines', 'Leases'])
    await page
      .getByRole('table', { name: table, exact: true })
      .getByRole('row', { name: new RegExp(`\\b${name}\\b`) })
      .first()
      .waitFor();
  await page.getByLabel('Filter Machines').fill('no such machine');
  await page.getByText('Nothing matches the filter').waitFor();
  await tab('Settings').click();
  await page.getByLabel('MTU').fill('1400');
  await page.getByRole('button', { name: 'Remove reservation 1' }).click();
  const bar = page.getByRole('region', { name: 'Unsaved changes' });
  await bar.getByText('at their next start').waitFor();
  await bar.getByRole('button', { name: 'Save' }).click();
  await bar.waitFor({ state: 'detached' });
  await waits.waitFor({ state: 'detached' });
  const now = mock.api.lists.networks.find((n) => n.id === lab.id);
  expect(now.mtu === 1400 && !(name in now.reservations), JSON.stringify(now));
  await page.getByLabel('Address of reservation 1').fill('nonsense');
  await bar.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('alert').filter({ hasText: 'must be an IPv4 address' }).waitFor();
  await bar.getByRole('button', { name: 'Undo' }).click();
  await bar.waitFor({ state: 'detached' });
  await tab('Events').click();
  await page.locator('.event-list').getByText('network lab was changed').first().waitFor();
  await tab('Permissions').click();
  await page.getByRole('heading', { name: 'Granted on this network' }).waitFor();
  await page.getByRole('button', { name: 'Delete', exact: true }).click();
  await page.getByText('refer to it; they must leave it first').waitFor();
  await page.keyboard.press('Escape');
  await page.goto(`${mock.url}/#/networks/nowhere`);
  await page.getByText('There is no such network').waitFor();
  await page.context().close();
});

test('obeys the keyboard', async () => {
  const page = await open();
  await page.keyboard.press('g');
  await page.keyboard.press('n');
  await page.getByRole('heading', { level: 1, name: 'Networks' }).waitFor();
  await page.keyboard.press('Control+k');
  await page.keyboard.type(machine.name);
  // The list of machines may still be on its way.
  await page.getByRole('option', { name: machine.name, selected: true }).waitFor();
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: machine.name }).waitFor();
  await page.keyboard.press('?');
  await page.getByRole('heading', { name: 'Keyboard shortcuts' }).waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('heading', { name: 'Keyboard shortcuts' }).waitFor({ state: 'detached' });
  await page.context().close();
});

let failed = 1;
try {
  failed = await runTests({ only: option('only') });
} finally {
  await browser.close();
  await mock.close();
}
process.exit(failed ? 1 : 0);
