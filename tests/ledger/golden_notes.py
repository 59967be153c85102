"""What other people's logs really signed: formats are checked against them, not against our own writer."""

from __future__ import annotations

GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
"""The verifier key of Go's checksum database, as the go command has it built in."""

GO_NOTE = """go.sum database tree
54715574
FUQBK+dBbFoa4DioEhMzkxn0fazBN3B6r+ZlT1TImNc=

— sum.golang.org Az3grpRUpAlGqlrE8Ie1d6i2+5RqP+xweAW4Xc9QpBw2VsHnIh08nNr5Gcbrq7A4N8eqbP15ABesspft4PXzZsLSfAU=
"""
GO_LATER_NOTE = """go.sum database tree
54717027
X8mO+rr4u+lIE2vmoFwuTa3LI038lIvvPEB3B2p3X7g=

— sum.golang.org Az3gruu60QOJ6mBYsURIUNeOq31xHaYKpFtaDmHUozy5UJ7qrnE9V9HTMiiZ+njWC6dQ9O2sDPoctRg4BM626vaS/QM=
"""

GO_RECORD_NUMBER = 10738965
GO_RECORD = """gopkg.in/yaml.v3 v3.0.1 h1:fxVm/GzAzEWqLHuvctI91KS9hhNmmWOoWu0XTYJS7CA=
gopkg.in/yaml.v3 v3.0.1/go.mod h1:K4uyk7z7BCEPqu6E+C64Yfv1cQ7kz7rIZviUmN+EgEM=
"""
GO_INCLUSION = """
vM+Zoj1IfCtvgzeGfX65uyxKRv6c3Oy1XOHyNsLGH7I=
FKZH/HXbpnny8TcNDpDUnv7if0abKXYOjNqxatSDs7Y=
kxo4jyd09UGFLtQYhRBM/iQIw69P9Vw2HnT84TalTp0=
Dz5Y9oPEBSsL9fI89qwo1dpjTk6QF7RHrQMhMhw3nNQ=
A00qtFWjl5osF48lahxu4lw3gc9ilZ4yOGqKsXw1mfo=
g+kiNJF0SzeThJHZg+C+LQylRpxfHzze9AnxBPnbQFw=
hf04vS9d/PkBLdxLH/owu0IAB4TzljFPRg1L/4wz4dQ=
l/pCXb3lNPr3XoLunwaizcWagmsYfvU2HLtaoqrLagI=
c0KSa8YtRjnN8Hl+AaBYZd5chtSuYAd1WV6RYjsUJTE=
jbso36GURiBPCIoe7mAODgge6wEptt2wVzsFJI4Z2XI=
/tWamSzQPfn6RtsOFNabj027hEtEkb9Aih9fey+FMYE=
KbG/HD/cdjLi7sV6ooP9Y9ZVgg4PN9YunQK7Il1khRg=
k5et4PR5IvIKZcISBopja6RyyuE4fCTA/NMJEC37PeI=
p++AVJLzyw3Y08Mm0KwIjIEOnfJlKGa67yrIXy57+iM=
p9fWMonF7h7CbgX6B04YRU2VqCbrbBWtu96INQpJf9M=
Y4yT7OblBqsuhYPk3l7BOYsvalz/UYafby1XWDd7LCo=
6pfMcDplbU0c27LwEp82ZNpgNEthZyPk81kNvRgB9Dg=
+vDR8xppB1AYVW3TY9Cv2TmlFYjebvqfA1yDf3tMz3A=
17DjpsQUMaQJPTTal0U/gWKGczw3j5LrnuYNPIWLWRE=
VJ2cn3rGgxho2lxwCSo/Ov7CQ28TGmzmDHbd0jlucRQ=
nIRuzymbjzJlsjA+EqvhWQ8+pNgGnPCM6ky8MeXW/tQ=
udRjhEO3cF7L32j7Q10R5wvQUePEcEcbtRwJ5/Md75U=
zAqn6H1b1nXY+WEE0oXtcxeR0ZK0SAkXNZevmpPr+pA=
/aUpTUlzK5BioQh7tUCcS1LgK65RPE5w5KuZLXwSa7I=
zesWuZw10TEJInNKrllG2PEgH8cKacLp6LY5WpXGOcY=
lttMqOwwB1gRDbJ/CiiGokyzgSthSxByrfkoeIMmVIk=
"""
GO_CONSISTENCY = """
7f/obfEoW4jIbJZyRyz34jfj6eITEHb/iv6NkozjCvo=
bcvksSMiPWC2Xun0HO+6R5NshOUGIoGDO1y/U8t1pnc=
/jlWp82whNKvvdxcVJxDJhwRP6lPGemB+NQJJ31WZvI=
G+9NULqJ6s2rLSIeQSqCVfcUB7E3SwQnUQxf1GGa2UA=
XFWOxVd30gBEhvqqzRNOPRaK2fWctUfydQGnl2WcxKw=
2mQ09/sA/kjOrV/OjHK1ceZA9e2+pUfqyPIsM5NtPck=
aNuXqNkaFPG/qITLSTRgmeVmp0dwLqP5h6gdKs2Kx4I=
Gg/PbcCR4uN+7hcPb6sO1Q9FegUqKsVq0YnX9rVoB+Q=
fhHSFHDclh3YRVq6qNltVv2Xd/6Dm7pWoWGCa5GJ8v4=
JtiEzKsXCSpvr+vx1He2rdzf+RCepR5riQ+skC40Oig=
mZlAmQMqppdW3f/TNsJzj+azEh3Ijyr23tEh+gqNWEs=
LRoK75Fl9Xm/WwEIaTWhDfGQhrUueYYA3wPj+rj/MMk=
OLpOVyADdNPvwfq9Rg93rYScfgug3yfzvaWVfZmqxHk=
17Gvxx5iaYiTLGjdBCBUK1QIkjiu7ZfV08fIqXw35C4=
gwSputUthSEyzllKMFLaAsdOCuwR/d0bRMPxUnmQ4IU=
LTeRjLNQrs2XohrHPK+i0suyG0bVpk2qTmxNB7qdEMc=
MdOpnRMfUoL32HLkVBWTCaT4Zo6BT5bFmNeOGpopF5o=
/WnQtddEqG03mbcU1XID1iws1nlKHVkJcaREWknCOiE=
xJ20xXM4QItt5vxFOtolZ5l18p7ej1+RimNkgWmoRFM=
"""

SIGSUM_SEED = bytes([17]) + bytes(31)
"""The seed of sigsum-go's test vectors, which are below."""
SIGSUM_NOTE = """sigsum.org/v1/tree/e796172b92befd62d9dc67e41c2f5bc9d3100a3023b20b1ca40288dd1c679e69
10
HA5HAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— sigsum.org/v1/tree/e796172b92befd62d9dc67e41c2f5bc9d3100a3023b20b1ca40288dd1c679e69 gJ2ho0n8F8olcerUF1FFdv235A/5as/coWrpLrtE7ovMeP5whgwouYExowG/lTznxu6OUGjjt5yJQ6bXtTcf718MqAQ=
"""
SIGSUM_COSIGNED_TEXT = "example.org/log\n10\nHA5HAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
SIGSUM_WITNESS = "example.org/witness"
SIGSUM_COSIGNATURE = (
    "— example.org/witness "
    "ys8uUAAAAAAAAATSftMzceM8zssdZ9jin9SjwIxzx9iADMf63VqirX2hafol9RsqNqbofIz0LVRqHXI2kpEBSki5RTXFtxz1vo9+Cg==\n"
)
"""By `SIGSUM_SEED` at second 1234."""
