/** What was tried with what, as a table of Markdown. */

export class Matrix {
  readonly #rows = new Map<string, Map<string, Set<string>>>();

  constructor(
    private readonly title: string,
    private readonly columns: readonly string[],
  ) {}

  /** What was tried several times, in several sizes for instance, is one cell with all that came of it. */
  add(row: string, column: string, what: string): void {
    const cells = this.#rows.get(row) ?? new Map<string, Set<string>>();
    const cell = cells.get(column) ?? new Set();
    this.#rows.set(row, cells.set(column, cell.add(what)));
  }

  print(): void {
    const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
    const cell = (what: Set<string> | undefined) => (what ? [...what].join("; ") : "not tried");
    const rows = [...this.#rows].map(([row, cells]) => line([row, ...this.columns.map((column) => cell(cells.get(column)))]));
    console.log([line([this.title, ...this.columns]), line(["---", ...this.columns.map(() => "---")]), ...rows].join("\n"));
  }
}
