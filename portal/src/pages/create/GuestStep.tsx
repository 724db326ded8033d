import { CheckField, TextField } from '../../ui/Field';
import type { StepProps } from './CreateWizard';

export function GuestStep({ draft, set, at }: StepProps) {
  const { cloud } = draft;
  const change = (part: Partial<typeof cloud>): void => set({ cloud: { ...cloud, ...part } });
  return (
    <>
      <CheckField
        label="Set the guest up at its first start"
        hint="With cloud-init, which most images of clouds have."
        checked={cloud.on}
        onInput={(on) => change({ on })}
      />
      {cloud.on && (
        <div class="form">
          <TextField
            label="User"
            value={cloud.user}
            onInput={(user) => change({ user })}
            error={at('/cloud_init/user')}
            placeholder="admin"
          />
          <TextField
            label="Password"
            type="password"
            autoComplete="new-password"
            value={cloud.password}
            onInput={(password) => change({ password })}
            error={at('/cloud_init/password')}
            hint="Keys are better"
          />
          <TextField
            label="SSH public keys"
            wide
            rows={3}
            hint="One a line"
            placeholder="ssh-ed25519 AAAA… you@laptop"
            value={cloud.keys}
            onInput={(keys) => change({ keys })}
            error={at('/cloud_init/ssh_keys')}
          />
          <TextField
            label="Host name"
            value={cloud.hostname}
            placeholder={draft.name}
            onInput={(hostname) => change({ hostname })}
            error={at('/cloud_init/hostname')}
          />
          <TextField
            label="Packages"
            value={cloud.packages}
            placeholder="nginx, git"
            onInput={(packages) => change({ packages })}
            error={at('/cloud_init/packages')}
          />
        </div>
      )}
    </>
  );
}
