/** What was tried with what, as a table of Markdown. */

export class Matrix {
  readonly #rows = new Map<string, Map<string, string>>();

  constructor(
    private readonly title: string,
    private readonly columns: readonly string[],
  ) {}

  set(row: string, column: string, what: string): void {
    const cells = this.#rows.get(row) ?? new Map<string, string>();
    this.#rows.set(row, cells.set(column, what));
  }

  print(): void {
    const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
    const rows = [...this.#rows].map(([row, cells]) => line([row, ...this.columns.map((column) => cells.get(column) ?? "not tried")]));
    console.log([line([this.title, ...this.columns]), line(["---", ...this.columns.map(() => "---")]), ...rows].join("\n"));
  }
}
