/** A second knip reporter: says how many files knip read, so that a run that read none can be told from a clean one. */
export default function reportCount({ counters }: { counters: { processed: number } }): void {
  process.stdout.write(`Read ${counters.processed} files\n`);
}
