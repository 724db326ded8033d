import { patch } from '../../api/client';
import { isAdministrator, networks } from '../../state/store';
import { Panel } from '../../ui/bits';
import { TextField } from '../../ui/Field';
import { EditForm } from '../EditForm';
import { changeBody, draftOf, wrongIn, type NetworkDraft } from './draft';
import { PacketFields, ReservationFields, ServiceFields, VlanFields } from './NetworkFields';
import type { NetworkTabProps } from './NetworkPage';
import { isOurs, NETWORK_FIELDS } from './types';

export function SettingsTab({ network, ports }: NetworkTabProps) {
  const { type } = network;
  const send = async (now: NetworkDraft): Promise<void> => {
    const body = changeBody(network, now);
    if (body) await patch(`/networks/${network.id}`, body);
    await networks.load();
  };
  return (
    <EditForm
      base={draftOf(network)}
      disabled={!isAdministrator.value}
      fields={NETWORK_FIELDS}
      ready={(now) => now.name.trim() !== '' && !Object.keys(wrongIn(now)).length}
      send={send}
      note={
        ports.length
          ? 'Machines run on it: addresses and MTU reach them at their next start.'
          : 'Not saved yet.'
      }
      saved="Saved."
    >
      {({ now, set, at: said }) => {
        const wrong = wrongIn(now);
        const at = (pointer: string): string | null =>
          wrong[pointer.slice(1) as keyof NetworkDraft] ?? said(pointer);
        const fields = { type, now, set, at };
        return (
          <>
            <Panel title="Network">
              <div class="form">
                <TextField
                  label="Name"
                  hint={network.machines ? 'Machines name it: it stays.' : undefined}
                  value={now.name}
                  onInput={(name) => set({ name })}
                  error={at('/name')}
                />
                <VlanFields {...fields} />
                <PacketFields {...fields} />
              </div>
            </Panel>
            {isOurs(type) && (
              <Panel title="Services">
                <div class="form">
                  <ServiceFields {...fields} />
                </div>
              </Panel>
            )}
            {type !== 'user' && (
              <Panel title="Reservations">
                <ReservationFields {...fields} />
              </Panel>
            )}
          </>
        );
      }}
    </EditForm>
  );
}
