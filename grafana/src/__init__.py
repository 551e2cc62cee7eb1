"""The dashboards as Python: `make generate` writes grafana/dashboards/*.json from them.

One module a dashboard, with its tiles, its main rows and DASHBOARD, the order of its rows; what does not fit there is
in a module beside it: `http_detail`, `database_application`, `llm_calls` and so on. All are made of `panels` and
`tables` in the colours of `looks`, with expressions of `promql`; `common` and `common_panels` have what several share,
`layout` places panels, `document` makes the JSON.

Why not Grafana's foundation SDK: its releases for Python end with Grafana 11.6, and a builder for any JSON cannot hold
the rules that matter here (every panel titled, described, with a unit and in a grid without gaps; one colour for one
meaning; zero where zero is the truth). `model` makes those rules the only way to write a panel.
"""
