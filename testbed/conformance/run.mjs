// Drives every resource with the official TypeScript library: `node run.mjs DIRECTORY-WITH-NODE_MODULES`.
// The Python checks are the long ones; these see that the second client reads and writes the same.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(path.join(path.resolve(process.argv[2]), 'package.json'));
const { Cloudflare } = require('cloudflare');

const account_id = process.env.ACCOUNT_ID;
const clientOf = (apiToken) =>
  new Cloudflare({ baseURL: `${process.env.API_URL}/client/v4`, apiToken, maxRetries: 0, timeout: 10_000 });
const client = clientOf(process.env.API_TOKEN);
const name = (prefix) => `${prefix}-${Math.random().toString(16).slice(2, 10)}`;

async function refused(status, code, call, pointer) {
  const error = await call().then(
    (answer) => assert.fail(`not refused with ${status} ${code}, but answered ${JSON.stringify(answer)}`),
    (error) => error,
  );
  assert.equal(error.status, status, String(error));
  assert.equal(error.errors[0].code, code, String(error));
  if (pointer) assert.equal(error.errors[0].source.pointer, pointer);
}

// Every object of a list over as many pages as it has; the library asks for them while it is read.
async function paged(pages, wanted) {
  const found = [];
  for await (const one of pages) found.push(one.id);
  assert.equal(new Set(found).size, found.length, 'an object came twice');
  for (const id of wanted) assert.ok(found.includes(id), `${id} is not in ${found}`);
}

// The library has no method for what is ours alone.
const ours = async (method, route, body) => (await client[method](route, { body })).result;

async function withZone(use) {
  const zone = await client.zones.create({ account: { id: account_id }, name: `${name('ts')}.example.com` });
  await use(zone);
  await client.zones.delete({ zone_id: zone.id });
  return zone;
}

async function withTunnel(use) {
  const vnets = client.zeroTrust.networks.virtualNetworks;
  const vnet = await vnets.create({ account_id, name: name('vnet') });
  const place = `/accounts/${account_id}/wireguard_tunnels`;
  const body = { name: name('tunnel'), generate_peer_key: true, virtual_network_id: vnet.id };
  const tunnel = await ours('post', place, body);
  await use(tunnel, vnet);
  await ours('delete', `${place}/${tunnel.id}`);
  await vnets.delete(vnet.id, { account_id });
  return vnet;
}

const checks = {
  async zones() {
    const { id: zone_id } = await withZone(async (zone) => {
      const at = { zone_id: zone.id };
      assert.equal((await client.zones.get(at)).name, zone.name);
      assert.equal((await client.zones.edit({ ...at, paused: true })).paused, true);
      const again = { account: { id: account_id }, name: zone.name };
      await refused(400, 1061, () => client.zones.create(again), '/name');
    });
    await refused(404, 7003, () => client.zones.get({ zone_id }));
  },

  async zonesOverThreePages() {
    const made = [];
    const create = (name) => client.zones.create({ account: { id: account_id }, name });
    for (let i = 0; i < 5; i++) made.push((await create(`${name('page')}.example.org`)).id);
    await paged(client.zones.list({ per_page: 2, name: 'ends_with:.example.org' }), made);
    for (const zone_id of made) await client.zones.delete({ zone_id });
  },

  async dnsRecords() {
    const records = client.dns.records;
    await withZone(async (zone) => {
      const at = { zone_id: zone.id };
      const body = { ...at, name: `a.${zone.name}`, type: 'A', content: '192.0.2.1', ttl: 300 };
      const made = await records.create(body);
      assert.equal(made.content, '192.0.2.1');
      assert.equal((await records.get(made.id, at)).ttl, 300);
      const edited = await records.edit(made.id, { ...body, comment: 'seen' });
      assert.equal(edited.comment, 'seen');
      const put = await records.update(made.id, { ...body, content: '192.0.2.2' });
      assert.deepEqual([put.content, put.comment], ['192.0.2.2', null]);
      await refused(400, 1004, () => records.create({ ...body, content: 'x' }), '/content');
      assert.equal((await records.delete(made.id, at)).id, made.id);
      await refused(404, 81044, () => records.get(made.id, at));
    });
  },

  async dnsRecordsOverThreePages() {
    await withZone(async (zone) => {
      const made = [];
      for (let i = 1; i <= 7; i++) {
        const body = { zone_id: zone.id, name: `n${i}.${zone.name}`, type: 'A', content: `192.0.2.${i}`, ttl: 1 };
        made.push((await client.dns.records.create(body)).id);
      }
      await paged(client.dns.records.list({ zone_id: zone.id, per_page: 3 }), made);
    });
  },

  async virtualNetworksAndRoutes() {
    const { virtualNetworks: vnets, routes } = client.zeroTrust.networks;
    await withTunnel(async (tunnel, vnet) => {
      const to = { account_id, tunnel_id: tunnel.id, virtual_network_id: vnet.id };
      assert.equal((await vnets.get(vnet.id, { account_id })).name, vnet.name);
      assert.equal((await vnets.edit(vnet.id, { account_id, comment: 'two' })).comment, 'two');
      const made = [];
      for (let i = 1; i <= 5; i++) made.push((await routes.create({ ...to, network: `10.${i}.0.0/16` })).id);
      await paged(routes.list({ account_id, virtual_network_id: vnet.id, per_page: 2 }), made);
      assert.equal((await routes.get(made[0], { account_id })).network, '10.1.0.0/16');
      assert.equal((await routes.edit(made[0], { account_id, comment: 'lan' })).comment, 'lan');
      const found = await routes.ips.get('10.2.3.4', { account_id, virtual_network_id: vnet.id });
      assert.equal(found.id, made[1]);
      await refused(409, 1014, () => routes.create({ ...to, network: '10.1.0.0/16' }), '/network');
      await refused(409, 1006, () => vnets.delete(vnet.id, { account_id }));
      for (const id of made) await routes.delete(id, { account_id });
      await refused(404, 1015, () => routes.get(made[0], { account_id }));
    });
  },

  async hostnameRoutes() {
    const { hostnameRoutes, routes } = client.zeroTrust.networks;
    await withTunnel(async (tunnel, vnet) => {
      const to = { account_id, tunnel_id: tunnel.id };
      await routes.create({ ...to, virtual_network_id: vnet.id, network: '10.0.0.0/24' });
      const by = { resolver_ips: ['10.0.0.53'] };
      const made = [];
      for (let i = 1; i <= 5; i++) {
        made.push((await hostnameRoutes.create({ ...to, ...by, hostname: `n${i}.js.internal` })).id);
      }
      await paged(hostnameRoutes.list({ account_id, hostname: 'js.internal', per_page: 2 }), made);
      const read = await hostnameRoutes.get(made[0], { account_id });
      assert.deepEqual([read.hostname, read.resolver_ips], ['n1.js.internal', ['10.0.0.53']]);
      assert.equal((await hostnameRoutes.edit(made[0], { account_id, comment: 'seen' })).comment, 'seen');
      await refused(400, 1020, () => hostnameRoutes.create({ ...to, hostname: 'm.internal' }), '/resolver_ips');
      await refused(409, 1021, () => hostnameRoutes.create({ ...to, ...by, hostname: '*.js.internal' }), '/hostname');
      for (const id of made) await hostnameRoutes.delete(id, { account_id });
      await refused(404, 1022, () => hostnameRoutes.get(made[0], { account_id }));
    });
  },

  async spectrumApps() {
    const apps = client.spectrum.apps;
    await withZone(async (zone) => {
      await withTunnel(async (tunnel, vnet) => {
        const route = { account_id, tunnel_id: tunnel.id, virtual_network_id: vnet.id, network: '10.0.0.0/24' };
        await client.zeroTrust.networks.routes.create(route);
        const at = { zone_id: zone.id };
        const made = [];
        for (let port = 7101; port <= 7105; port++) {
          const app = await apps.create({
            ...at,
            dns: { type: 'CNAME', name: `p${port}.${zone.name}` },
            protocol: `tcp/${port}`,
            origin_direct: ['tcp://10.0.0.50:22'],
            virtual_network_id: vnet.id,
          });
          made.push(app.id);
        }
        await paged(apps.list({ ...at, per_page: 2 }), made);
        const read = await apps.get(made[0], at);
        assert.equal(read.protocol, 'tcp/7101');
        const body = { ...at, dns: read.dns, protocol: 'tcp/7101', virtual_network_id: vnet.id };
        const changed = await apps.update(made[0], { ...body, origin_direct: ['tcp://10.0.0.51:22'] });
        assert.deepEqual(changed.origin_direct, ['tcp://10.0.0.51:22']);
        const away = { ...body, protocol: 'tcp/7199', origin_direct: ['tcp://10.9.9.9:22'] };
        await refused(400, 11044, () => apps.create(away));
        for (const id of made) await apps.delete(id, at);
        await refused(404, 10006, () => apps.get(made[0], at));
      });
    });
  },

  async accountsAndTokens() {
    await paged(client.accounts.list(), [account_id]);
    assert.equal((await client.user.tokens.verify()).status, 'active');
    await refused(403, 10000, () => clientOf('nonsense').user.tokens.verify());
    assert.deepEqual((await client.ips.list()).ipv4_cidrs, [`${process.env.EDGE_ADDRESS}/32`]);
  },
};

let failed = 0;
for (const [check, run] of Object.entries(checks)) {
  if (!check.includes(process.env.FILTER ?? '')) continue;
  const began = performance.now();
  try {
    await run();
    console.log(`ok      node ${check} (${Math.round(performance.now() - began)} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  node ${check}`);
    console.error(error);
  }
}
if (failed > 0) process.exit(1);
