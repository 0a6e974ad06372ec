// The one error type of the project: what went wrong, under a stable code, and what must end because of it.
// It stands in the lowest layer so that codec, memory and device speak of errors in the same words.

/** What must end when a fault happens; everything outside of it goes on. */
export type FaultScope = 'request' | 'ring' | 'connection' | 'daemon';

/**
 * An expected failure: returned, not thrown, wherever a peer's bytes or the machine's state can cause it.
 *
 * `code` is stable and listed in ARCHITECTURE.md; `message` has the form "expected X, got Y" and ends with the
 * operator's fix where there is one. A fault of scope `request` refuses one message (NACK); `ring` stops one
 * virtqueue; `connection` closes one front-end; `daemon` ends the process.
 */
export class Fault extends Error {
  override readonly name = 'Fault';
  readonly code: string;
  readonly scope: FaultScope;

  constructor(scope: FaultScope, code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.scope = scope;
  }
}
