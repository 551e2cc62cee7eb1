"""The dashboards as Python: `make generate` writes grafana/dashboards/*.json from them.

Why not Grafana's foundation SDK: its releases for Python end with Grafana 11.6, and a builder for any JSON cannot hold
the rules that matter here (every panel titled, described, with a unit and in a grid without gaps; one colour for one
meaning; zero where zero is the truth). `model` makes those rules the only way to write a panel.
"""
