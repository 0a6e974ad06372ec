// How an old process passes all that it holds to a new one (`--takeover`): datagrams as to a service manager's file descriptor store,
// each with one fd under its name, and a last one that says whether that was all.
// Source: sd_notify(3), FDSTORE=1.

/** A socket that listens; which one it is tells its path. */
export const LISTENER = 'vhost-rngd.listener';
/** The control socket, which listens. */
export const CONTROL = 'vhost-rngd.control';
/** The lock of the state file; see state-lock.ts. */
export const STATE_LOCK = 'vhost-rngd.state-lock';

const END = 'HANDOVER';
const FRONT_ENDS = 'FRONTENDS';
const NAME = 'FDNAME';

/** The last message. */
export interface End {
  /** False: something could not be sent. */
  readonly whole: boolean;
  /** Front-ends that are to go on. */
  readonly frontEnds: number;
}

/** The text of the last message. */
export function endText({ whole, frontEnds }: End): string {
  return `${END}=${whole ? 1 : 0}\n${FRONT_ENDS}=${frontEnds}`;
}

/** A message as it came: the name of its fd, or the end. */
export function parsePassing(text: string): {
  readonly name: string | undefined;
  readonly end: End | undefined;
} {
  const assigned = new Map(
    text.split('\n').map((line): [string, string] => {
      const at = line.indexOf('=');
      return [line.slice(0, at), line.slice(at + 1)];
    }),
  );
  const whole = assigned.get(END);
  const end =
    whole === undefined ? undefined : { whole: whole === '1', frontEnds: Number(assigned.get(FRONT_ENDS)) };
  return { name: assigned.get(NAME), end };
}
