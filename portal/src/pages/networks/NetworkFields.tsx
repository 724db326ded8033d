// The fields of a network, for making one and for changing it.
import type { NetworkDraft } from './draft';
import { Plus, Trash2 } from '../../ui/icons';
import { machineList } from '../../state/store';
import { Button } from '../../ui/Button';
import { CheckField, NumberField, SelectField, TextField } from '../../ui/Field';
import { isOurs, type NetworkType } from './types';

interface FieldsProps {
  type: NetworkType;
  now: NetworkDraft;
  set(part: Partial<NetworkDraft>): void;
  at(pointer: string): string | null;
}

/** What is decided when it is made. */
export function FoundingFields({ type, now, set, at }: FieldsProps) {
  if (type === 'bridge')
    return (
      <TextField
        label="Bridge of the host"
        hint="The uplink: a bridge that you have made, with the host's card in it."
        placeholder="br0"
        value={now.bridge}
        onInput={(bridge) => set({ bridge })}
        error={at('/bridge')}
      />
    );
  if (!isOurs(type)) return null;
  return (
    <>
      <TextField
        label="Subnet"
        hint="Empty: the next free one. Its first address is the gateway."
        placeholder="10.20.0.0/24"
        value={now.subnet}
        onInput={(subnet) => set({ subnet })}
        error={at('/subnet')}
      />
      <SelectField
        label="IPv6"
        value={now.ipv6}
        onInput={(ipv6) => set({ ipv6: ipv6 as NetworkDraft['ipv6'] })}
        options={[
          { value: 'made', label: 'A prefix of its own' },
          { value: 'own', label: 'This prefix' },
          { value: 'none', label: 'None' },
        ]}
        error={now.ipv6 === 'own' ? null : at('/subnet6')}
      />
      {now.ipv6 === 'own' && (
        <TextField
          label="IPv6 prefix"
          placeholder="fd12:3456:789a:1::/64"
          value={now.subnet6}
          onInput={(subnet6) => set({ subnet6 })}
          error={at('/subnet6')}
        />
      )}
    </>
  );
}

export function VlanFields({ type, now, set, at }: FieldsProps) {
  if (type !== 'bridge') return null;
  return (
    <>
      <NumberField
        label="VLAN"
        hint="Of what cards send untagged."
        placeholder="none"
        min={1}
        max={4094}
        value={now.vlan}
        onInput={(vlan) => set({ vlan })}
        error={at('/vlan')}
      />
      <TextField
        label="Allowed VLANs"
        hint="Those that a card may be given instead, or tag itself."
        placeholder="20, 30-35"
        value={now.vlans}
        onInput={(vlans) => set({ vlans })}
        error={at('/vlans')}
      />
    </>
  );
}

export function ServiceFields({ type, now, set, at }: FieldsProps) {
  if (!isOurs(type)) return null;
  return (
    <>
      <CheckField
        label="DHCP"
        hint="Each card has one address for good: the next free one, or its reservation."
        checked={now.dhcp}
        onInput={(dhcp) => set({ dhcp })}
      />
      <CheckField
        label="DNS"
        hint="Machines are known by their names."
        checked={now.dns}
        onInput={(dns) => set({ dns })}
      />
      {(at('/dhcp') ?? at('/dns')) && <p class="bad-text wide">{at('/dhcp') ?? at('/dns')}</p>}
      <TextField
        label="Domain"
        hint="Of those names."
        placeholder={`${now.name || 'name'}.internal`}
        value={now.domain}
        onInput={(domain) => set({ domain })}
        error={at('/domain')}
      />
    </>
  );
}

export function PacketFields({ type, now, set, at }: FieldsProps) {
  if (type === 'user') return null;
  return (
    <>
      <NumberField
        label="MTU"
        hint="The largest packet; guests are told."
        min={1280}
        max={9216}
        unit="bytes"
        value={now.mtu}
        onInput={(mtu) => set({ mtu: mtu ?? 1500 })}
        error={at('/mtu')}
      />
      <CheckField
        label="Own addresses only"
        hint="Off for guests that are routers or switches themselves."
        checked={now.guard}
        onInput={(guard) => set({ guard })}
      />
    </>
  );
}

export function ReservationFields({ now, set, at }: FieldsProps) {
  const list = now.reservations;
  const change = (index: number, part: Partial<(typeof list)[number]>): void =>
    set({ reservations: list.map((r, i) => (i === index ? { ...r, ...part } : r)) });
  return (
    <div class="entries wide">
      {at('/reservations') && (
        <p class="bad-text" role="alert">
          {at('/reservations')}
        </p>
      )}
      {list.map((r, i) => (
        <div class="entry reservation" key={i}>
          <TextField
            label={`Machine of reservation ${i + 1}`}
            value={r.machine}
            onInput={(machine) => change(i, { machine })}
            list={machineList.value.slice(0, 1000).map((m) => m.name)}
          />
          <TextField
            label={`Address of reservation ${i + 1}`}
            placeholder="10.20.0.50"
            value={r.address}
            onInput={(address) => change(i, { address })}
          />
          <Button
            icon={Trash2}
            variant="ghost"
            label={`Remove reservation ${i + 1}`}
            onClick={() => set({ reservations: list.filter((_, at) => at !== i) })}
          />
        </div>
      ))}
      <div>
        <Button
          small
          icon={Plus}
          onClick={() => set({ reservations: [...list, { machine: '', address: '' }] })}
        >
          Reserve an address
        </Button>
      </div>
    </div>
  );
}
