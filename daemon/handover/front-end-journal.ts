// Keeps one front-end's record (frontend-record.ts) as it changes, and with it every open file that the record names. Only what
// a VMM says makes it change, so nothing here is on the data path.
import { closeFd, type Fd } from '../../shared-memory/fd.js';
import type { Backlog } from '../systemd/notify-queue.js';
import type { FdStore, FdVault } from './fd-vault.js';
import { type FrontendRecord, type Keep, RECORD_VERSION } from './frontend-record.js';
import { recordName } from './kept-names.js';
import { RecordFile } from './record-file.js';

/** What a data-plane thread keeps for the next process. */
export interface Keeping {
  readonly store: FdStore & Backlog;
  readonly vault: FdVault;
  /** The number of the next record. */
  nextRecord: number;
}

/** Whoever has something to keep; a connection. */
export interface Recorded {
  record(keep: Keep): Omit<FrontendRecord, 'version' | 'device'>;
}

/** The record of one front-end. Owns the record's fd. */
export class FrontEndJournal {
  private readonly keeping: Keeping;
  private readonly device: string;
  private readonly name: string;
  private readonly file: RecordFile;
  private readonly keep: Keep;
  private isKept: boolean;

  private constructor(
    keeping: Keeping,
    device: string,
    record: { readonly name: string; readonly file: RecordFile; readonly isKept: boolean },
  ) {
    this.keeping = keeping;
    this.device = device;
    this.name = record.name;
    this.file = record.file;
    this.isKept = record.isKept;
    this.keep = (fd) => keeping.vault.keep(fd);
  }

  /** Of a front-end of `device` that has no record yet; it is kept once it is whole. Throws a Fault when there is no fd, or no memory. */
  static begin(keeping: Keeping, device: string): FrontEndJournal {
    const name = recordName(keeping.nextRecord++);
    return new FrontEndJournal(keeping, device, { name, file: RecordFile.create(), isKept: false });
  }

  /** Goes on with a record that is kept under `number`; adopts `fd`, which holds one. */
  static goOn(keeping: Keeping, device: string, number: number, fd: Fd): FrontEndJournal {
    const opened = RecordFile.open(fd);
    if (opened === undefined) throw new Error(`no record in ${recordName(number)}`);
    return new FrontEndJournal(keeping, device, {
      name: recordName(number),
      file: opened.file,
      isKept: true,
    });
  }

  /** Writes down how things stand; what is no longer needed is forgotten afterwards. */
  save(frontEnd: Recorded): void {
    const record: FrontendRecord = {
      version: RECORD_VERSION,
      device: this.device,
      ...frontEnd.record(this.keep),
    };
    this.file.write(JSON.stringify(record));
    if (!this.isKept) this.keeping.store.keep(this.name, this.file.fd);
    this.isKept = true;
    this.keeping.vault.flush();
  }

  /** What the record says to be in the socket too was taken out. */
  acknowledge(): void {
    this.file.acknowledge();
  }

  /** Writes no more; the record stays where it is kept. */
  close(): void {
    closeFd(this.file.fd);
  }

  /** The front-end has gone. */
  end(): void {
    this.keeping.store.forget(this.name);
    closeFd(this.file.fd);
    this.keeping.vault.flush();
  }
}
