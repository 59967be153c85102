"""Points and coupon codes in a script: earned, held for an order, returned, never spent twice."""

import tempfile
from pathlib import Path

from kiki import LoyaltyLedger
from kiki.engage.coupon_book import CouponBook
from kiki.engage.loyalty_program import read_program
from kiki.errors import CodeDenied, PointsShort

program = read_program("""
points_per_unit: 1          # one point for one unit of money
expiry_days: 365
tiers:
  - {name: silver, points: 500}
  - {name: gold, points: 2000, multiplier: 1.5}
""")

with LoyaltyLedger.open(Path(tempfile.mkdtemp()) / "loyalty.db", program) as points:
    # Every change has a key of the caller's choice: the payment's number, for example. Said twice, it is done once.
    paid = points.earn("customer-7", amount="612.90", key="payment-1001", order="1001")
    again = points.earn("customer-7", amount="612.90", key="payment-1001", order="1001")
    print(f"earned {paid.entry.points}, again: {again.repeated}, there are {again.balance.available}")

    # A checkout sets points aside first. An order that comes to nothing gives them back; so does time.
    held = points.hold("customer-7", 200, key="checkout-1002", order="1002")
    print(f"held for the order: {held.balance.held}, left to spend: {held.balance.available}")
    points.commit("customer-7", held.entry.place, key="paid-1002")
    try:
        points.spend("customer-7", 500, key="checkout-1003")
    except PointsShort as short:
        print("refused:", short)

    # The first order is sent back: its points are taken back, though some are spent, once.
    points.refund_order("customer-7", "1001", key="return-1001")
    points.refund_order("customer-7", "1001", key="return-1001-again")
    print("after the return:", points.balance("customer-7").available)

    standing = points.standing("customer-7")
    print(f"tier: {standing.tier}, {standing.points_to_next} points to {standing.next_tier}")
    print("sums hold:", list(points.problems()) == [])

    # Codes that are good once, each for one customer.
    codes = CouponBook(points)
    codes.issue("winback", 100)
    own = codes.give("winback", "customer-7")
    print("the same code again:", codes.give("winback", "customer-7") == own)
    codes.lock(own, key="order-1004", customer="customer-7")
    try:
        codes.redeem(own, key="order-1005", customer="customer-8")
    except CodeDenied as denied:
        print("somebody else:", denied.reason)
    codes.redeem(own, key="order-1004", customer="customer-7", order="1004")
    print("codes:", codes.counts())
