// What the rooms of the mock's API share.

export class Refusal extends Error {
  constructor(status, kind, detail, field) {
    super(detail);
    this.status = status;
    this.kind = kind;
    this.field = field;
  }
}

/** A machine as lists show it. */
export const summary = (machine) => {
  const rest = { ...machine };
  for (const name of ['config', 'pending_config', 'resources', 'granted']) delete rest[name];
  return rest;
};

/** A merge patch (RFC 7396). */
export const merge = (from, patch) => {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const out = { ...(typeof from === 'object' && !Array.isArray(from) ? from : {}) };
  for (const [key, value] of Object.entries(patch))
    if (value === null) delete out[key];
    else out[key] = merge(out[key], value);
  return out;
};
