"""Plans that tests begin with."""

SPRING = """\
plan: spring-sale
currency: USD
time_zone: America/New_York
starts: 2026-12-01
ends: 2026-12-14
budget: $20,000.00 total
approval_above: $5,000.00/day
scopes: {team: growth}
platforms:
  google_ads: {account: "123-456-7890", settings: {login_customer: "111"}}
  meta: {account: act_1}
campaigns:
  - name: search-brand
    platform: google_ads
    objective: sales
    budget: $1,000.00/day
    bid: $1.20
    countries: [US, CA]
  - name: social
    platform: meta_smart
    budget: 250 USD/day
    bid: {ltv: 30%, floor: $5.00, ceiling: $80, bound: lower}
    days: [mon, tue, wed, thu, fri]
    audience: {list: vip-buyers, consent: targeting}
"""
