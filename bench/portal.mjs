#!/usr/bin/env node
// How long the portal takes to show 500 machines, on a real host: from the navigation to the first row,
// in headless Chromium, nothing cached and then cached. bench/portal [--build build] [--machines 500]
import { resolve } from 'node:path';
import { login, openBrowser } from '../tests/portal/browser.mjs';
import { Host } from '../tests/portal/host.mjs';
import { option } from '../tests/portal/tap.mjs';

const ROUNDS = 5;
const count = Number(option('machines', 500));
const host = new Host(resolve(option('build', 'build')));
const browser = await openBrowser();
const median = (list) => Math.round([...list].sort((a, b) => a - b)[Math.floor(list.length / 2)]);

/** Milliseconds until something is painted, and until a machine is. */
async function visit(page, url) {
  await page.goto('about:blank');
  await page.goto(`${url}#/machines`);
  await page.locator('.table-body [role=row]').first().waitFor();
  return page.evaluate(() => ({
    paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0,
    row: window.firstRow,
  }));
}

try {
  const url = await host.url();
  for (let i = 0; i < count; i++)
    await host.call('POST', '/machines', { name: `m-${i}`, memory: 1 << 26, networks: [] });
  for (;;) {
    const { json } = await host.call('GET', '/machines?limit=1&state=creating');
    if (!json.total) break;
  }
  for (const cached of [false, true]) {
    const paints = [];
    const rows = [];
    for (let i = 0; i < ROUNDS; i++) {
      const context = await browser.newContext({
        ignoreHTTPSErrors: true,
        viewport: { width: 1440, height: 900 },
      });
      const page = await context.newPage();
      await page.addInitScript(() => {
        const look = () =>
          document.querySelector('.table-body [role=row]')
            ? requestAnimationFrame(() => (window.firstRow = performance.now()))
            : requestAnimationFrame(look);
        look();
      });
      await login(page, url, 'admin', host.password);
      const cdp = await context.newCDPSession(page);
      await cdp.send('Network.setCacheDisabled', { cacheDisabled: !cached });
      await visit(page, url);
      const { paint, row } = await visit(page, url);
      paints.push(paint);
      rows.push(row);
      await context.close();
    }
    const how = cached ? 'cached' : 'nothing cached';
    console.log(
      `${count} machines, ${how}: first paint ${median(paints)} ms, first machine ${median(rows)} ms`,
    );
  }
} finally {
  await browser.close();
  await host.close();
}
