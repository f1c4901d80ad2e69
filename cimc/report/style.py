"""The style sheet of the report's pages: light and dark, on paper, and on a phone."""

from cimc.report.svg import DARK, LIGHT


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


STYLE = f"""
:root {{ color-scheme: light; {_variables(LIGHT)} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark; {_variables(DARK)} }} }}
* {{ box-sizing: border-box; }}
body {{ font: 14px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; color: var(--ink);
  background: var(--paper); margin: 0 auto; max-width: 1180px; padding: 24px; }}
h1 {{ font-size: 24px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 18px; margin: 40px 0 4px; }} h3 {{ font-size: 14px; margin: 20px 0 4px; }} p {{ margin: 4px 0 12px; }}
a {{ color: var(--link); }} p, li {{ overflow-wrap: anywhere; }}
.note {{ color: var(--muted); max-width: 90ch; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 12px 0 0; padding: 0; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 10px; margin: 16px 0; }}
.tile {{ border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; }}
.tile b {{ display: block; font-size: 18px; font-weight: 600; }}
.tile span {{ color: var(--muted); font-size: 12px; }}
.table {{ overflow-x: auto; max-width: 100%; }}
/* A shade at the edge behind which there is more to scroll to; the paper, which moves along, covers it at the end. */
.plot, .table {{ scrollbar-width: thin; scrollbar-color: var(--grey) var(--paper);
  background: linear-gradient(to right, var(--paper) 60%, transparent) 0 0 / 44px 100% no-repeat local,
    linear-gradient(to left, var(--paper) 60%, transparent) 100% 0 / 44px 100% no-repeat local,
    linear-gradient(to right, rgb(110 125 140 / 0.5), transparent) 0 0 / 22px 100% no-repeat scroll,
    linear-gradient(to left, rgb(110 125 140 / 0.5), transparent) 100% 0 / 22px 100% no-repeat scroll; }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 3px 10px; text-align: right; }}
th {{ color: var(--muted); font-weight: 500; border-bottom: 1px solid var(--line); vertical-align: bottom; }}
th:first-child, td:first-child, .left {{ text-align: left; }}
table:has(td:nth-child(3)) td {{ white-space: nowrap; }}
tbody tr:nth-child(even) {{ background: var(--stripe); }}
tr.total td {{ border-top: 1px solid var(--line); font-weight: 600; background: var(--paper); }}
figure {{ margin: 8px 0 18px; max-width: 100%; }}
figcaption {{ font-size: 13px; margin-bottom: 4px; overflow-wrap: anywhere; }}
figcaption a {{ font-size: 12px; margin-left: 8px; }}
svg {{ display: block; font-family: inherit; max-width: max(100%, 840px); height: auto; }}
svg .b {{ pointer-events: none; }}
.plot {{ overflow: auto; max-width: 100%; max-height: 860px; }}
.framed {{ border: 1px solid var(--line); border-radius: 6px; padding: 14px; }}
.framed svg {{ margin: 0 auto; max-width: none; }}
.key {{ display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }}
.legend {{ columns: 250px; font-size: 12px; margin: 10px 0; }}
.legend div {{ break-inside: avoid; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
.meter {{ display: inline-block; width: 70px; height: 8px; background: var(--unused); margin-left: 8px;
  border-radius: 2px; }}
.meter i {{ display: block; height: 8px; background: var(--blue); border-radius: 2px; }}
.side {{ display: flex; flex-wrap: wrap; gap: 4px 28px; align-items: flex-start; }}
.cells {{ display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: flex-end; }}
.cells figure {{ width: 216px; margin: 6px 0; }} .side > * {{ min-width: 0; max-width: 100%; }}
details {{ margin: 8px 0; }} summary {{ cursor: pointer; color: var(--link); }}
@media (max-width: 600px) {{ body {{ padding: 12px; }} .framed {{ padding: 4px; max-height: 460px; }}
  .cells {{ gap: 4px; justify-content: space-between; }}
  .cells figure {{ width: min(216px, 100%); }} th, td {{ padding: 3px 6px; }} }}
@page {{ margin: 14mm; }}
@media print {{ body {{ max-width: none; padding: 0; font-size: 10pt; }} nav, figcaption a {{ display: none; }}
  .plot, .table {{ overflow: visible; max-height: none; background: none; }}
  figure, .tile, tr {{ break-inside: avoid; }}
  h2 {{ break-after: avoid; }} svg {{ max-width: 100%; max-height: 240mm; height: auto; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }} }}
"""
